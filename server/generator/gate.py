"""The gate: judges whether a release may reach sites."""

from __future__ import annotations

import torch

from f2l_fed.audit.release_limits import decide
from f2l_fed.core.random_streams import generator_for
from f2l_fed.errors import F2LError, ReleaseError
from f2l_fed.generator.generator import Generator
from f2l_fed.matrices.blocks import blocks
from server.federation.folder import Federation
from server.federation.release import Release
from server.federation.release_registry import require_finite
from server.generator.release_records import release_records, rows_left, while_erasing

_DRAWS = 8
_COMPARED = 64


def objections(federation: Federation, release: Release) -> tuple[str, ...]:
    """The objections to a release, a sentence each; empty if sites may get it.

    The gate judges the file that sites would get, not what the retraining had in memory.

    Args:
        federation: The folder.
        release: A candidate.
    """
    reasons: list[str] = []
    if release.sites:
        # One that was fitted on no heads, for all sites have a privacy budget, has no figures.
        reasons += decide(release.figures, federation.config.limits).reasons
    promoted = federation.releases.promoted()
    now = promoted.id if promoted is not None else ""
    if release.parent != now:
        reasons.append(
            f"it was made from release {release.parent or 'none'}, but sites get {now or 'none'}."
        )
    kept = {release.sites[row] for row in rows_left(federation, release)}
    if gone := [site for site in release.sites if site not in kept]:
        reasons.append(f"it was fitted on {', '.join(gone)}, erased since.")
    try:
        generator = federation.releases.generator(release.id)
        moved = 0.0
        shares = federation.body is not None or federation.config.has_shared_network
        if promoted is not None and not shares:
            # Heads on different bodies can't be compared, and a shared network moves every round.
            before = promoted
            moved = while_erasing(federation, lambda: drift(federation, release, before))
    except F2LError as error:
        if error.transient:
            raise
        return (*reasons, str(error))
    # NaN compares as neither; it must not pass.
    if not moved <= federation.config.gate.max_drift:
        reasons.append(
            f"it is {moved:.3g} times as far from the networks that {now} was fitted on as {now} "
            f"is, above the limit of {federation.config.gate.max_drift:.3g}."
        )
    if damage := unsound(generator):
        reasons.append(damage)
    return tuple(reasons)


def drift(federation: Federation, release: Release, before: Release) -> float:
    """The drift of a release: how much worse than its predecessor it predicts that one's networks.

    All other figures compare a release with the records it was fitted on; if all of these are
    forged, only the earlier ones show it.

    Args:
        federation: The folder.
        release: The new one.
        before: The release that sites get now.

    Returns:
        Ratio of squared distances over at most 64 sites that both were fitted on; 0 if there are
        none.
    """
    row_of = {site: row for row, site in enumerate(release.sites)}
    known = [row for row in rows_left(federation, before) if before.sites[row] in row_of]
    old_rows = known[:_COMPARED]
    if not old_rows:
        return 0.0
    new_rows = [row_of[before.sites[row]] for row in old_rows]
    was, now = (federation.releases.expected(one.id) for one in (before, release))
    missed = [0.0, 0.0]
    for some in blocks(now[0].numel(), len(old_rows)):
        weights = release_records(federation, before, old_rows[some]).weights.double()
        for place, rows in enumerate((was[old_rows[some]], now[new_rows[some]])):
            missed[place] += float((rows.flatten(0, 1).double() - weights).square().sum())
    return missed[1] / max(missed[0], 1e-30)


def unsound(generator: Generator) -> str:
    """The reason, as a sentence, why a generator is not finite; "" if it is."""
    try:
        require_finite(generator, where="")
    except ReleaseError as error:
        return str(error)
    for member in generator.members:
        around = member.mean.expand(_DRAWS, -1)
        with torch.no_grad():
            expected = member.expect(torch.zeros(1, around.shape[1]))
            drawn = member.sample(around, generator_for("gate", "draws"))
        if not bool(expected.isfinite().all() and drawn.isfinite().all()):
            return "the generator makes networks that are not finite."
    return ""
