"""f2l-admin site forget: a site's networks go for good, and who learned from them is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from f2l_fed.errors import UsageError, ZooError
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
    from f2l_fed.zoo import Zoo
    from server.federation import Federation
    from server.releases import Release, ReleaseRegistry


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


def _forget(zoo: Zoo, federations: list[Federation], site: str) -> int | None:
    """Erases a site in quarantine, in the zoo, and in what else lies beside it.

    In this order: what is released from quarantine meanwhile is in the zoo before its erasure.

    Returns:
        The commit, or None if the zoo never held a record of the site.

    Raises:
        ZooError: If the site is known nowhere.
    """
    from server.screening import erase

    known = any(_known(federation, site) for federation in federations)
    for federation in federations:
        federation.quarantine.forget(site)
    ever = site in zoo.erasures() or zoo.snapshot().records(site=site, status=None)
    number = zoo.forget(site).number if ever else None
    # Also if it is not known: a writer that died may have left something of it.
    for federation in federations:
        erase(federation, site)
    if not (ever or known):
        raise ZooError(
            "no such site",
            got=repr(site),
            remedy="Check the name; neither the zoo nor a federation's folder has anything of it.",
        )
    return number


def _known(federation: Federation, site: str) -> bool:
    """Whether a federation knows a site from elsewhere than its zoo."""
    from server.registry import SiteRegistry

    if federation.quarantine.list(site=site):
        return True
    registry = SiteRegistry(federation.root / "registry")
    return any(registered.name == site for registered in registry.all())


def _federations(zoo: str, releases: Path | None) -> list[Federation]:
    """Those that a zoo and a folder of releases lie in."""
    homes = {releases.absolute().parent} if releases is not None else set()
    if "://" not in zoo:
        homes.add(home_of(zoo))
    return [found for found in map(federation_in, sorted(homes)) if found is not None]
