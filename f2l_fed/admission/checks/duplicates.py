"""Checks against remembered networks and updates: copies, and colluding sites.

Only sketches are compared, so thousands of networks cost a few megabytes and milliseconds. A copy
with a little noise is nearer to another site's network than an honest one could be. How near that
is depends on the sites: where all have much of the same data, honest updates are almost equal. So
the limit is a share of the median distance from one site to the second nearest other one, and at
most a share of the network's own update, or a cosine. (A copy puts two sites near another, itself
and its original, but neither near a third; where half of the sites are honestly alike, each has
more than one near it.) Where too few sites are known, only a network that is equal but for
rounding or a trace of noise counts as a copy, and collusion is left to `review_cohort`.
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

# Of the median distance between sites, below which two of them are too near.
_SHARE = 0.25
# Of `AdmissionConfig.copy`, where too few sites are known.
_SHARE_AMONG_FEW = 0.1
# Networks from which that distance is measured.
_SAMPLE = 64


def copies(evidence: Evidence) -> Iterator[Finding]:
    """Finds networks of another site, and earlier ones of the same site, sent as new ones."""
    new, history, config = evidence.features, evidence.history, evidence.config
    if not history.signature_ids:
        return
    # Differences first: products would lose what lies near.
    distances = torch.cdist(
        new.signatures, history.signatures, compute_mode="donot_use_mm_for_euclid_dist"
    )
    shares = distances / new.lengths[:, None].clamp(min=1e-12)
    mine = new.id
    foreign = torch.tensor([other.site != mine.site for other in history.signature_ids])
    # From one start on the same data, honest training ends at the same network again.
    earlier = torch.tensor(
        [
            other.site == mine.site
            and other.round < mine.round
            and other.parent != mine.parent
            # Solved on the next body, the same examples give almost the same head again.
            and not evidence.submission.solved
            for other in history.signature_ids
        ]
    )
    if bool(foreign.any()):
        limit = config.copy * _SHARE_AMONG_FEW
        distance = _min_distance(history.signature_ids, history.signatures, mine, config.minimum)
        if distance is not None:
            limit = min(config.copy, distance / max(float(new.lengths.min()), 1e-12))
        yield from _too_near("copy", shares[:, foreign], limit)
    if bool(earlier.any()):
        yield from _too_near("stale", shares[:, earlier], config.copy)


def collusion(evidence: Evidence) -> Iterator[Finding]:
    """Finds updates in the same direction as another site's of the same round."""
    new, history = evidence.features, evidence.history
    rows = [
        row
        for row, other in enumerate(history.direction_ids)
        if other.site != new.id.site and other[1:] == new.id[1:]
    ]
    known = history.directions[rows]
    sites = [history.direction_ids[row].site for row in rows]
    limit = collusion_limit(known, sites, evidence.config)
    if limit is None:
        return
    cosine = float((new.directions.double() @ known.double().T).max())
    if cosine > limit:
        figures = {"cosine": cosine, "max_allowed": limit}
        yield Finding(code="alike", action="quarantine", figures=figures)


def collusion_limit(
    directions: Tensor, sites: Sequence[str], config: AdmissionConfig
) -> float | None:
    """Cosine above which two updates of a round are too similar; None with too few sites.

    Args:
        directions: (n, S) float32, of length 1.
        sites: The site of each.
        config: Limits.
    """
    if len(set(sites)) < config.minimum:
        return None
    distance = _SHARE * _typical_distance(directions.double(), sites)
    return 1 - min(sqrt(2 * (1 - config.alike)), distance) ** 2 / 2


def _too_near(code: str, shares: Tensor, limit: float) -> Iterator[Finding]:
    share = float(shares.min())
    if share < limit:
        figures = {"share": share, "min_allowed": limit}
        yield Finding(code=code, action="quarantine", figures=figures)


def _min_distance(
    ids: Sequence[SubmissionId], signatures: Tensor, mine: SubmissionId, minimum: int
) -> float | None:
    """Least distance allowed between sites' networks of a round; None with too few sites.

    The round is this one, or the one before while that has more sites: in a first round all have
    one start, so it says nothing about later ones.
    """
    for number in (mine.round, mine.round - 1):
        rows = [
            row
            for row, other in enumerate(ids)
            if other.round == number
            and other.site != mine.site
            and bool(other.parent) == bool(mine.parent)
        ]
        sites = [ids[row].site for row in rows]
        if len(set(sites)) >= minimum:
            return _SHARE * _typical_distance(signatures[rows].double(), sites)
    return None


def _typical_distance(vectors: Tensor, sites: Sequence[str]) -> float:
    """Median over a sample of the networks of the distance to the second nearest other site."""
    number = {site: index for index, site in enumerate(dict.fromkeys(sites))}
    which = torch.tensor([number[site] for site in sites])
    # Sorted by name, so that the sample doesn't depend on the order of arrival.
    ordered = sorted(range(len(sites)), key=sites.__getitem__)
    sample = torch.tensor(ordered[:: max(1, len(vectors) // _SAMPLE)])
    distances = torch.cdist(vectors[sample], vectors)
    nearest = torch.full((len(sample), len(number)), inf, dtype=distances.dtype)
    nearest.scatter_reduce_(1, which.expand_as(distances), distances, "amin")
    nearest[torch.arange(len(sample)), which[sample]] = inf
    return float(nearest.kthvalue(min(2, len(number)), dim=1).values.median())
