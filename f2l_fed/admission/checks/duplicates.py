"""Checks against remembered networks and updates: copies, and colluding sites.

Only sketches are compared, and exactly only those that may be near (`SketchTable.near`). A copy
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
from f2l_fed.admission.history import network_cohort, update_cohort
from f2l_fed.admission.sketch_table import SketchTable
from f2l_fed.admission.submission import SubmissionId
from f2l_fed.admission.verdict import Finding

# Of the median distance between sites, below which two of them are too near.
_SHARE = 0.25
# Of `AdmissionConfig.copy`, where too few sites are known.
_SHARE_AMONG_FEW = 0.1
# Networks from which that distance is measured.
_SAMPLE = 64
# Networks to which it is measured at first, which gives more and costs little.
_FEW = 64
# Share of a distance that is more than its rounding.
_ROUNDING = 1e-3


def copies(evidence: Evidence) -> Iterator[Finding]:
    """Finds networks of another site, and earlier ones of the same site, sent as new ones."""
    new, networks, config = evidence.features, evidence.history.networks, evidence.config
    mine, lengths = new.id, new.lengths.clamp(min=1e-12)

    def least_share(rows: list[int]) -> float:
        if not rows:
            return inf
        # Differences first: products would lose what lies near.
        distances = torch.cdist(
            new.signatures, networks.at(rows), compute_mode="donot_use_mm_for_euclid_dist"
        )
        return float((distances / lengths[:, None]).min())

    def limit_by(distance: float) -> float:
        return min(config.copy, _SHARE * distance / float(lengths.min()))

    members = _peers(networks, mine, config.minimum)
    limit = config.copy * _SHARE_AMONG_FEW
    if members is not None:
        limit = limit_by(_typical_distance(networks, members, _FEW) * (1 + _ROUNDING))
    foreign = [
        row
        for row in networks.near(new.signatures, limit * lengths)
        if networks.id_of(row).site != mine.site
    ]
    share = least_share(foreign)
    if members is not None and share < limit:
        limit = limit_by(_typical_distance(networks, members))
    yield from _too_near("copy", share, limit)
    earlier = [
        row
        for row, other in networks.of_site(mine.site)
        # From one start on the same data, honest training ends at the same network again.
        if other.round < mine.round
        and other.parent != mine.parent
        # Solved on the next body, the same examples give almost the same head again.
        and not evidence.submission.solved
    ]
    yield from _too_near("stale", least_share(earlier), config.copy)


def collusion(evidence: Evidence) -> Iterator[Finding]:
    """Finds updates in the same direction as another site's of the same round."""
    new, updates, config = evidence.features, evidence.history.updates, evidence.config
    # Of a network without hidden weights nothing is left, which is in no direction.
    directions = new.directions[new.directions.any(dim=1)]
    cohort, site = update_cohort(new.id), new.id.site
    members, sites = updates.cohort(cohort).without(site), updates.cohort(cohort).sites
    if len(sites) - (site in sites) < config.minimum or not len(directions):
        return
    limit = _largest_cosine(_typical_distance(updates, members, _FEW) * (1 + _ROUNDING), config)
    near = [
        row
        for row in updates.near(directions, _apart(limit).expand(len(directions)))
        if updates.id_of(row).site != site and update_cohort(updates.id_of(row)) == cohort
    ]
    cosine = float((directions.double() @ updates.at(near).double().T).max()) if near else -1.0
    if cosine > limit:
        limit = _largest_cosine(_typical_distance(updates, members), config)
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
    table = SketchTable(update_cohort, [SubmissionId(site, 0, "") for site in sites], directions)
    members = table.cohort((0, "")).members
    return _largest_cosine(_typical_distance(table, members), config)


def _largest_cosine(distance: float, config: AdmissionConfig) -> float:
    return 1 - min(sqrt(2 * (1 - config.alike)), _SHARE * distance) ** 2 / 2


def _apart(cosine: float) -> Tensor:
    """() float32, a little more than the distance of unit vectors, rounded, with a cosine."""
    return torch.tensor(sqrt(2 * (1 - cosine)) + 1e-3)


def _too_near(code: str, share: float, limit: float) -> Iterator[Finding]:
    if share < limit:
        figures = {"share": share, "min_allowed": limit}
        yield Finding(code=code, action="quarantine", figures=figures)


def _peers(
    networks: SketchTable, mine: SubmissionId, minimum: int
) -> Sequence[tuple[str, int]] | None:
    """Other sites' networks of a round, in the order of their names; None with too few sites.

    The round is this one, or the one before while that has more sites: in a first round all have
    one start, so it says nothing about later ones.
    """
    for number in (mine.round, mine.round - 1):
        cohort = networks.cohort(network_cohort(mine._replace(round=number)))
        if len(cohort.sites) - (mine.site in cohort.sites) >= minimum:
            return cohort.without(mine.site)
    return None


def _typical_distance(
    table: SketchTable, members: Sequence[tuple[str, int]], others: int | None = None
) -> float:
    """Median over a sample of a round's rows of the distance to the second nearest other site.

    Args:
        table: Has the rows.
        members: Site and number of each, in the order of the names, so that the sample doesn't
            depend on the order of arrival.
        others: Measure to so many of them only, or up to twice as many, for an upper bound.
    """
    sample = members[:: max(1, len(members) // _SAMPLE)]
    known = members if others is None else members[:: max(1, len(members) // others)]
    if others is not None and len({site for site, _ in known}) < 2:
        return inf
    vectors, near = (table.at([row for _, row in some]).double() for some in (sample, known))
    sites = [[site for site, _ in some] for some in (sample, known)]
    return float(_second_nearest(vectors, sites[0], near, sites[1]).median())


def _second_nearest(
    vectors: Tensor, owners: Sequence[str], others: Tensor, sites: Sequence[str]
) -> Tensor:
    """(m,), the distance from (m, S) vectors of some sites to the second nearest other site's."""
    number = {site: index for index, site in enumerate(dict.fromkeys(sites))}
    which = torch.tensor([number[site] for site in sites])
    distances = torch.cdist(vectors, others)
    nearest = torch.full((len(vectors), len(number)), inf, dtype=distances.dtype)
    nearest.scatter_reduce_(1, which.expand_as(distances), distances, "amin")
    own = [(row, number[site]) for row, site in enumerate(owners) if site in number]
    nearest[tuple(torch.tensor(own).view(-1, 2).T)] = inf
    return nearest.kthvalue(min(2, len(number)), dim=1).values
