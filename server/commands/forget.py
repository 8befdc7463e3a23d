"""f2l-admin site forget: erase a site's networks for good and list the releases they are in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from f2l_fed.errors import UsageError
from server.commands.output import AsJson
from server.commands.zoo_arguments import (
    Releases,
    ZooPlace,
    federation_in,
    home_of,
    opened_at,
    registry_of,
)

if TYPE_CHECKING:
    from server.erasure import ErasedSite
    from server.federation.folder import Federation


def forget(
    zoo: ZooPlace,
    site: Annotated[str, typer.Argument(help="The site to erase.")],
    yes: Annotated[bool, typer.Option("--yes", help="Confirm the erasure.")] = False,
    releases: Releases = None,
    as_json: AsJson = False,
) -> None:
    """Erase all networks of a site for good and list the releases that learned from them.

    In a federation's folder this includes quarantine entries and the admission history, also of a
    site that the zoo has never had a record of.
    """
    from server.erasure import erase_site

    if not yes:
        raise UsageError(
            "this erases all networks of the site for good",
            where=site,
            remedy="Confirm with --yes.",
        )
    registry = registry_of(zoo, releases)
    erased = erase_site(
        site, zoo=opened_at(zoo), releases=registry, federations=_federations(zoo, releases)
    )
    if as_json:
        _print_json(erased)
    else:
        _print(erased)


def _print_json(erased: ErasedSite) -> None:
    listed = [
        {
            "id": one.release.id,
            "state": one.release.state,
            "learned": "inherited" if one.inherited_from else "direct",
            "parent": one.inherited_from,
        }
        for one in erased.affected
    ]
    content = {"site": erased.site, "commit": erased.commit, "releases": listed}
    print(json.dumps(content, indent=1))


def _print(erased: ErasedSite) -> None:
    done = f"commit {erased.commit}" if erased.commit else "the zoo had nothing of it"
    print(f"{erased.site} is erased, {done}")
    for one in erased.affected:
        how = (
            f"goes on from {one.inherited_from}, which was affected"
            if one.inherited_from
            else "was fitted on its networks"
        )
        print(f"release {one.release.id} ({one.release.state}) {how}")
    if any(one.release.state == "promoted" for one in erased.affected):
        print("retrain, and promote the new release, so that sites no longer get what it learned")


def _federations(zoo: str, releases: Path | None) -> list[Federation]:
    """The federations that a zoo and a folder of releases lie in."""
    homes = {releases.absolute().parent} if releases is not None else set()
    if "://" not in zoo:
        homes.add(home_of(zoo))
    return [found for found in map(federation_in, sorted(homes)) if found is not None]
