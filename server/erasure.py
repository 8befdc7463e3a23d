"""The erasure of a site: everything that a zoo and the federations around it hold of it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from f2l_fed.admission import load_history, save_history
from f2l_fed.core.locks import locked
from f2l_fed.errors import UsageError, ZooError
from f2l_fed.zoo import Zoo
from server.federation.agreed_scales import forget_figures
from server.federation.body_updates import BodyUpdates
from server.federation.folder import Federation
from server.federation.release import Release
from server.federation.release_registry import ReleaseRegistry
from server.membership.site_registry import SiteRegistry
from server.rounds.run_cache import RunCache
from server.rounds.screening import lock_history


@dataclass(frozen=True, slots=True)
class AffectedRelease:
    """A release that learned from a site.

    Args:
        release: The release.
        inherited_from: "" if it was fitted on the site's networks itself, else the affected
            release that it refines.
    """

    release: Release
    inherited_from: str


@dataclass(frozen=True, slots=True)
class ErasedSite:
    """The result of an erasure.

    Args:
        site: The site.
        commit: The zoo's commit; None if the zoo never held a record of the site.
        affected: Releases that learned from the site, oldest first. They stay as they are.
    """

    site: str
    commit: int | None
    affected: tuple[AffectedRelease, ...]


def erase_site(
    site: str, *, zoo: Zoo, releases: ReleaseRegistry, federations: Sequence[Federation]
) -> ErasedSite:
    """Erases a site for good, in this order.

    1. The releases that learned from it are listed: a second erasure can't list them again.
    2. Its quarantine entries go. An entry that is released meanwhile is in the zoo before step 3.
    3. Its records go from the zoo, and the commit says so. From now on no candidate is made from
       them and no retraining uses them; one at work begins again (`while_erasing`), and the gate
       rejects a release that was fitted on them.
    4. What lies beside the zoo goes (`erase_beside_zoo`): quarantine entries that came meanwhile,
       contexts and candidates in the run cache, figures
       of columns, latents that a killed retraining left, and the
       site's part of the admission history. A run that goes on meanwhile sees from the zoo that the
       site was erased, and follows.

    A process that dies in between leaves the rest to a repetition. The site's registration and
    what the releases of step 1 have learned from it stay.

    Args:
        site: The site.
        zoo: The zoo.
        releases: The releases that were made from the zoo.
        federations: The federations that the zoo or the releases lie in; none for a zoo alone.

    Raises:
        ZooError: If the site is known nowhere, or a file of the zoo can't be erased. Step 4 is
            done all the same, since a writer that died may have left something of it.
    """
    affected = affected_releases(releases, site)
    is_known = any(_knows(federation, site) for federation in federations)
    for federation in federations:
        federation.quarantine.forget(site)
    was_stored = site in zoo.erasures() or bool(zoo.snapshot().records(site=site, status=None))
    try:
        commit = zoo.forget(site).number if was_stored else None
    finally:
        for federation in federations:
            erase_beside_zoo(federation, site)
    if not (was_stored or is_known):
        raise ZooError(
            "unknown site",
            got=repr(site),
            remedy="Check the name; neither the zoo nor a federation's folder has anything of it.",
        )
    return ErasedSite(site, commit, affected)


def affected_releases(registry: ReleaseRegistry, site: str) -> tuple[AffectedRelease, ...]:
    """The releases that learned from a site, directly or from a release that did, oldest first."""
    direct = {release.id for release in registry.fitted_on(site)}
    found: dict[str, AffectedRelease] = {}
    for release in map(registry.read, registry.ids()):
        if release.id in direct or release.parent in found:
            inherited_from = "" if release.id in direct else release.parent
            found[release.id] = AffectedRelease(release, inherited_from)
    return tuple(found.values())


def erase_beside_zoo(federation: Federation, site: str) -> None:
    """Erases what a federation's folder holds of a site beside the zoo; see `erase_site`."""
    federation.quarantine.forget(site)
    RunCache.beside(federation.root).forget(site)
    BodyUpdates.of(federation.root).forget(site)
    forget_figures(federation.root, site)
    _erase_training(federation)
    path = federation.screening
    with lock_history(federation):
        if path.exists():
            save_history(path, load_history(path).without(site))
        # Left by writers that died; none is at work under the lock.
        for draft in path.parent.glob(f".{path.name}.*.draft"):
            draft.unlink()


def _erase_training(federation: Federation) -> None:
    """Deletes what a killed retraining left; a run under way clears it itself."""
    left = federation.root / "training"
    gone = left.with_name(".training.erased")
    # Left by an erasure that was killed.
    shutil.rmtree(gone, ignore_errors=True)
    if left.exists():
        # The lock is held for a moment only: a run that begins meanwhile does not wait for it.
        with suppress(UsageError), locked(federation.root / "rounds" / "lock", wait=False):
            left.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _knows(federation: Federation, site: str) -> bool:
    """Whether a federation knows a site from elsewhere than its zoo."""
    if federation.quarantine.list(site=site) or BodyUpdates.of(federation.root).holds(site):
        return True
    registry = SiteRegistry(federation.root / "registry")
    return any(registered.name == site for registered in registry.all())
