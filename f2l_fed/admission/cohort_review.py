"""The review at the end of an exchange: every admitted site against all others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace

import torch
from torch import Tensor

from f2l_fed.admission.checks import outliers
from f2l_fed.admission.checks.duplicates import collusion_limit
from f2l_fed.admission.config import AdmissionConfig
from f2l_fed.admission.evidence import FEW, Comparisons
from f2l_fed.admission.history import Exclusion, History
from f2l_fed.admission.site_statistics import SiteStatistics
from f2l_fed.admission.verdict import Finding, Verdict

_CHUNK = 128
"""Updates compared with all others at once: memory grows with their number, not its square."""

_ROUNDING = 1e-4
"""More than a cosine of directions in float32 is off."""


def review_cohort(
    history: History, kind: str, config: AdmissionConfig
) -> tuple[History, dict[str, Verdict]]:
    """Judges the submissions admitted since the last review again, against all sites' newest.

    The first of a round were compared with few others. The review depends on the admitted
    submissions and not on their order, except that of two similar updates the earlier one stays.
    A site that it finds leaves the statistics, and the rest are judged again until none is found;
    the site's records stay in the zoo and are to be left out of retrainings. A site that has sent
    nothing new is not judged again: later rounds make shorter updates, and that is no evidence
    against an older one. But submissions that came while fewer than `AdmissionConfig.minimum`
    sites were known stay unreviewed until more are.

    Args:
        history: The admission history after the exchange.
        kind: "first" or "later", see `SubmissionId.kind`.
        config: Limits. That on lengths is half-way between shortening and quarantine.

    Returns:
        The history with its exclusions, and the verdicts on the excluded sites, by name.
    """
    config = replace(config, far=(config.clip + config.far) / 2)
    history, found = history.copy(), dict[str, Verdict]()
    colluding = _find_colluding(history, kind, config)
    enough = len(history.statistics_on(kind)) >= config.minimum
    of_kind = [one for one in history.signature_ids if one.kind == kind]
    rounds = {one.site: one.round for one in sorted(of_kind, key=lambda one: one.round)}
    unreviewed = {one.site for one in history.unreviewed if one.kind == kind}
    while new := _find_outliers(history.statistics_on(kind), unreviewed, colluding, config):
        exclusions = {
            site: Exclusion(rounds.get(site, 0), verdict.reason) for site, verdict in new.items()
        }
        history.exclude(kind, exclusions)
        found |= new
    if enough:
        history.unreviewed = {one for one in history.unreviewed if one.kind != kind}
    return history, dict(sorted(found.items()))


def _find_outliers(
    statistics: SiteStatistics,
    unreviewed: Set[str],
    colluding: Mapping[str, list[Finding]],
    config: AdmissionConfig,
) -> dict[str, Verdict]:
    """Verdicts on the unreviewed sites that are not to be admitted."""
    found = {}
    peers = {parent: statistics.from_release(parent) for parent in set(statistics.parents)}
    for site, parent, values in statistics.each():
        if site not in unreviewed:
            continue
        comparisons = Comparisons(
            values=values,
            statistics=statistics.everyone(),
            peers=peers[parent],
            complete=True,
            few=FEW,
            config=config,
        )
        findings = [
            finding
            for check in (*outliers.WEIGHT_CHECKS, outliers.output_spread)
            for finding in check(comparisons)
        ]
        verdict = Verdict.of([*findings, *colluding.get(site, ())])
        if not verdict.admitted:
            found[site] = verdict
    return found


def _find_colluding(
    history: History, kind: str, config: AdmissionConfig
) -> dict[str, list[Finding]]:
    """Findings by site about updates in one direction, from starts of one release in a round."""
    found: dict[str, list[Finding]] = {}
    groups: dict[tuple[int, str], list[int]] = {}
    ids, updates = history.updates.ids, history.updates.rows
    for row, one in enumerate(ids):
        if one.kind == kind:
            groups.setdefault((one.round, one.parent), []).append(row)
    for rows in groups.values():
        sites = [ids[row].site for row in rows]
        directions = updates[rows]
        limit = collusion_limit(directions.double(), sites, config)
        if limit is None:
            continue
        for row, cosine in _too_similar(directions, sites, limit):
            figures = {"cosine": cosine, "max_allowed": limit}
            finding = Finding(code="alike", action="quarantine", figures=figures)
            found.setdefault(sites[row], []).append(finding)
    return found


def _too_similar(
    directions: Tensor, sites: Sequence[str], limit: float
) -> Iterator[tuple[int, float]]:
    """The rows with a cosine above a limit to one of a site that has arrived before, and that.

    Args:
        directions: (n, S) float32, of length 1, in order of arrival.
        sites: The site of each.
        limit: The cosine.
    """
    arrival = {site: place for place, site in enumerate(dict.fromkeys(sites))}
    places = torch.tensor([arrival[site] for site in sites])
    order, by = places.sort(stable=True)
    sorted_rows = directions[by]
    # Of each site, the rows that have arrived before it.
    before = torch.searchsorted(order, order)
    for start in range(0, len(by), _CHUNK):
        some, own = sorted_rows[start : start + _CHUNK], before[start : start + _CHUNK]
        others = sorted_rows[: int(own[-1])]
        if not len(others):
            continue
        near = (_largest(some, others, own) > limit - _ROUNDING).nonzero()[:, 0]
        if len(near):
            exact = _largest(some[near].double(), others.double(), own[near])
            pairs = zip((by[start + near]).tolist(), exact.tolist(), strict=True)
            yield from ((row, cosine) for row, cosine in pairs if cosine > limit)


def _largest(some: Tensor, others: Tensor, counts: Tensor) -> Tensor:
    """(m,) largest cosine of each row to the first so many others; -1 to none."""
    later = torch.arange(len(others)) >= counts[:, None]
    return (some @ others.T).masked_fill_(later, -1).amax(dim=1)
