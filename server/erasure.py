"""TODO."""

from __future__ import annotations

import shutil
from contextlib import suppress

from f2l_fed.admission import load_history, save_history
from f2l_fed.core.locks import locked
from f2l_fed.errors import UsageError, ZooError
from f2l_fed.zoo import Zoo
from server.federation.folder import Federation
from server.federation.release import Release
from server.federation.release_registry import ReleaseRegistry
from server.rounds.run_cache import RunCache
from server.rounds.screening import _alone


def erase(federation: Federation, site: str) -> None:
    """Erases what a federation's folder holds of a site beside the zoo, after the zoo has it not.

    A run that goes on meanwhile sees that the zoo lost the site, and forgets it too.
    """
    federation.quarantine.forget(site)
    RunCache.beside(federation.root).forget(site)
    _erase_training(federation)
    path = federation.screening
    with _alone(federation):
        if path.exists():
            save_history(path, load_history(path).without(site))
        # What writers left that died; none is at work now.
        for draft in path.parent.glob(f".{path.name}.*.draft"):
            draft.unlink()


def _erase_training(federation: Federation) -> None:
    """Deletes what a retraining has left that was killed; a run under way clears it itself."""
    left = federation.root / "training"
    gone = left.with_name(".training.erased")
    # Of an erasure that was killed.
    shutil.rmtree(gone, ignore_errors=True)
    if left.exists():
        # Held for a moment only: a run that begins meanwhile does not wait for it.
        with suppress(UsageError), locked(federation.root / "rounds" / "lock", wait=False):
            left.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


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
    from server.erasure import erase

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
    from server.membership.site_registry import SiteRegistry

    if federation.quarantine.list(site=site):
        return True
    registry = SiteRegistry(federation.root / "registry")
    return any(registered.name == site for registered in registry.all())
