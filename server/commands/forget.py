"""f2l-admin site forget: a site's networks go for good, and who learned from them is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from f2l_fed.errors import UsageError
from server.commands.zoo_arguments import (
    AsJson,
    Releases,
    ZooPlace,
    federation_in,
    home_of,
    opened_at,
    registry_of,
)

if TYPE_CHECKING:
    from server.federation.folder import Federation


def forget(
    zoo: ZooPlace,
    site: Annotated[str, typer.Argument(help="The site to erase.")],
    yes: Annotated[bool, typer.Option("--yes", help="Does it.")] = False,
    releases: Releases = None,
    as_json: AsJson = False,
) -> None:
    """Erases all networks of a site for good and lists the releases that learned from them.

    In a federation's folder that includes those in quarantine and what admission remembers, also
    of a site that the zoo has never had a record of.
    """
    from server.erasure import _affected, _forget

    if not yes:
        raise UsageError(
            "this erases all networks of the site for good",
            where=site,
            remedy="Say so with --yes.",
        )
    # Before anything is erased: afterwards the question can't be put again.
    affected = _affected(registry_of(zoo, releases), site)
    number = _forget(opened_at(zoo), _federations(zoo, releases), site)
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
        print(json.dumps({"site": site, "commit": number, "releases": listed}, indent=1))
        return
    print(f"{site} is erased, {f'commit {number}' if number else 'the zoo had nothing of it'}")
    for release, parent in affected:
        how = (
            f"goes on from {parent}, which was affected" if parent else "was fitted on its networks"
        )
        print(f"release {release.id} ({release.state}) {how}")
    if any(release.state == "promoted" for release, _ in affected):
        print("retrain, and promote the new release, so that sites no longer get what it learned")


def _federations(zoo: str, releases: Path | None) -> list[Federation]:
    """Those that a zoo and a folder of releases lie in."""
    homes = {releases.absolute().parent} if releases is not None else set()
    if "://" not in zoo:
        homes.add(home_of(zoo))
    return [found for found in map(federation_in, sorted(homes)) if found is not None]
