"""Checks against networks and updates that are remembered: copies, and sites in league.

Only sketches are compared, so thousands of networks cost a few megabytes and milliseconds. A copy
with a little noise is nearer to another site's network than an honest one could be. How near that
is depends on the sites: where all have much of the same data, honest updates are almost equal. So
the limit is a share of the median distance from one site to the second nearest other one, and at
most a share of the network's own update, or a cosine. (A copy puts two sites near another, itself
and its original, but neither near a third; where half of the sites are honestly alike, each has
more than one near it.) Where too few sites are known, only what is equal but for rounding or a
trace of noise counts as a copy, and who is in league is left to `review`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf, sqrt

import torch
from torch import Tensor

from f2l_fed.admission.config import AdmissionConfig
from f2l_fed.admission.evidence import Evidence
from f2l_fed.admission.submission import SubmissionId
from f2l_fed.admission.verdict import Finding

_SHARE, _FEW, _SAMPLE = 0.25, 0.1, 64


def copies(case: Evidence) -> Iterator[Finding]:
    """A network of another site, or an earlier one of the same site, sent as one's own."""
    one, memory, config = case.measures, case.memory, case.config
    if not memory.owners:
        return
    # Differences first: products would lose what lies near.
    away = torch.cdist(
        one.signatures, memory.signatures, compute_mode="donot_use_mm_for_euclid_dist"
    )
    shares = away / one.lengths[:, None].clamp(min=1e-12)
    mine = one.origin
    foreign = torch.tensor([owner.site != mine.site for owner in memory.owners])
    # From one start on the same data, honest training ends at the same network again.
    earlier = torch.tensor(
        [
            owner.site == mine.site and owner.round < mine.round and owner.parent != mine.parent
            for owner in memory.owners
        ]
    )
    if bool(foreign.any()):
        least = _least(memory.owners, memory.signatures, mine, config.minimum)
        own = float(one.lengths.min())
        limit = config.copy * _FEW if least is None else min(config.copy, least / max(own, 1e-12))
        yield from _nearer("copy", shares[:, foreign], limit)
    if bool(earlier.any()):
        yield from _nearer("stale", shares[:, earlier], config.copy)


def _nearer(code: str, shares: Tensor, limit: float) -> Iterator[Finding]:
    share = float(shares.min())
    if share < limit:
        figures = {"share": share, "least": limit}
        yield Finding(code=code, action="quarantine", figures=figures)


def _least(
    owners: Sequence[SubmissionId], signatures: Tensor, mine: SubmissionId, minimum: int
) -> float | None:
    """Least distance between sites' networks of a round; None while too few are known.

    Of this round, or of the one before while that has more sites: in a first round all have one
    start, so it says nothing about later ones.
    """
    for number in (mine.round, mine.round - 1):
        rows = [
            index
            for index, owner in enumerate(owners)
            if owner.round == number
            and owner.site != mine.site
            and bool(owner.parent) == bool(mine.parent)
        ]
        sites = [owners[row].site for row in rows]
        if len(set(sites)) >= minimum:
            return _SHARE * _typical(signatures[rows].double(), sites)
    return None


def _typical(vectors: Tensor, sites: Sequence[str]) -> float:
    """Median over a sample of the networks of the distance to the second nearest other site."""
    number = {site: index for index, site in enumerate(dict.fromkeys(sites))}
    which = torch.tensor([number[site] for site in sites])
    # By name: it shall not depend on who came when.
    ordered = sorted(range(len(sites)), key=sites.__getitem__)
    sample = torch.tensor(ordered[:: max(1, len(vectors) // _SAMPLE)])
    away = torch.cdist(vectors[sample], vectors)
    nearest = torch.full((len(sample), len(number)), inf, dtype=away.dtype)
    nearest.scatter_reduce_(1, which.expand_as(away), away, "amin")
    nearest[torch.arange(len(sample)), which[sample]] = inf
    return float(nearest.kthvalue(min(2, len(number)), dim=1).values.median())


def least_angle(directions: Tensor, sites: Sequence[str], config: AdmissionConfig) -> float | None:
    """Cosine above which updates of one round are alike; None if it has too few sites.

    Args:
        directions: (n, S) float32, of length 1.
        sites: Whose each is.
        config: Limits.
    """
    if len(set(sites)) < config.minimum:
        return None
    distance = _SHARE * _typical(directions.double(), sites)
    return 1 - min(sqrt(2 * (1 - config.alike)), distance) ** 2 / 2


def alike(case: Evidence) -> Iterator[Finding]:
    """An update in the same direction as another site's of the same round."""
    one, memory = case.measures, case.memory
    rows = [
        index
        for index, source in enumerate(memory.sources)
        if source.site != one.origin.site and source[1:] == one.origin[1:]
    ]
    known = memory.directions[rows]
    limit = least_angle(known, [memory.sources[row].site for row in rows], case.config)
    if limit is None:
        return
    cosine = float((one.directions.double() @ known.double().T).max())
    if cosine > limit:
        yield Finding(code="alike", action="quarantine", figures={"cosine": cosine, "most": limit})
