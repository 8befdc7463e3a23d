"""f2l-admin site forget: a site's networks go for good, and who learned from them is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from f2l_fed.errors import UsageError
from server.commands.places import (
    AsJson,
    Releases,
    ZooPlace,
    federation_in,
    home_of,
    opened_at,
    registry_of,
)

if TYPE_CHECKING:
    from server.releases import Release, ReleaseRegistry


def forget(
    zoo: ZooPlace,
    site: Annotated[str, typer.Argument(help="The site to erase.")],
    yes: Annotated[bool, typer.Option("--yes", help="Does it.")] = False,
    releases: Releases = None,
    as_json: AsJson = False,
) -> None:
    """Erases all networks of a site for good and lists the releases that learned from them.

    In a federation's folder that includes those in quarantine and what admission remembers.
    """
    if not yes:
        raise UsageError(
            "this erases all networks of the site for good",
            where=site,
            remedy="Say so with --yes.",
        )
    # Before anything is erased: afterwards the question can't be put again.
    affected = _affected(registry_of(zoo, releases), site)
    commit = opened_at(zoo).forget(site)
    _forget_beside(zoo, releases, site)
    if as_json:
        listed = [
            {
                "id": release.id,
                "state": release.state,
                "learned": "inherited" if parent else "direct",
                "parent": release.parent,
            }
            for release, parent in affected
        ]
        print(json.dumps({"site": site, "commit": commit.number, "releases": listed}, indent=1))
        return
    print(f"{site} is erased, commit {commit.number}")
    for release, parent in affected:
        how = (
            f"goes on from {parent}, which was affected" if parent else "was fitted on its networks"
        )
        print(f"release {release.id} ({release.state}) {how}")
    if any(release.state == "promoted" for release, _ in affected):
        print("retrain, and promote the new release, so that sites no longer get what it learned")


def _affected(registry: ReleaseRegistry, site: str) -> list[tuple[Release, str]]:
    """Releases that learned from a site, oldest first.

    Each comes with "" if it was fitted on the site's networks itself, or else with the affected
    release that it goes on from.
    """
    direct = {release.id for release in registry.fitted_on(site)}
    found: dict[str, tuple[Release, str]] = {}
    for release in map(registry.read, registry.ids()):
        if release.id in direct or release.parent in found:
            found[release.id] = (release, "" if release.id in direct else release.parent)
    return list(found.values())


def _forget_beside(zoo: str, releases: Path | None, site: str) -> None:
    from server.screening import erase

    homes = {releases.absolute().parent} if releases is not None else set()
    if "://" not in zoo:
        homes.add(home_of(zoo))
    for federation in filter(None, map(federation_in, homes)):
        erase(federation, site)
