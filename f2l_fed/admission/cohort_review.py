"""The second look, at the end of an exchange: every admitted site against all others."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace

import torch

from f2l_fed.admission.checks import outliers
from f2l_fed.admission.checks.duplicates import least_angle
from f2l_fed.admission.config import AdmissionConfig
from f2l_fed.admission.evidence import FEW, Comparisons
from f2l_fed.admission.history import Exclusion, History
from f2l_fed.admission.robust_statistics import SiteStatistics
from f2l_fed.admission.verdict import Finding, Verdict

_AT_ONCE = 128
"""Updates compared with all others at once: memory grows with their number, not its square."""


def review_cohort(
    memory: History, kind: str, config: AdmissionConfig
) -> tuple[History, dict[str, Verdict]]:
    """Judges what was admitted since the last time once more, against all sites' newest.

    Whoever came first was compared with few. This depends on what was admitted and not on the
    order in which it came, except that of two updates that are alike the earlier one stays.
    Whoever it finds loses its vote, and the rest are judged again until nobody is found; its
    records stay in the zoo and are to be left out of retrainings. Who has sent nothing new is not
    judged again: later rounds make shorter updates, and that is nothing against an older one. But
    what came while fewer than `AdmissionConfig.minimum` were known stays new until more are.

    Args:
        memory: After the exchange.
        kind: "first" or "later", see `Origin.kind`.
        config: Limits. That on lengths is half-way between shortening and keeping out.

    Returns:
        The memory with its doubts, and the sites that something new speaks against, by name.
    """
    config = replace(config, far=(config.clip + config.far) / 2)
    in_league, found = _alike(memory, kind, config), dict[str, Verdict]()
    enough = len(memory.votes_on(kind).sites) >= config.minimum
    owners = sorted((o for o in memory.owners if o.kind == kind), key=lambda owner: owner.round)
    rounds = {owner.site: owner.round for owner in owners}
    fresh = {origin.site for origin in memory.fresh if origin.kind == kind}
    while new := _unlike_others(memory.votes_on(kind), fresh, in_league, config):
        doubts = {site: Exclusion(rounds.get(site, 0), v.reason) for site, v in new.items()}
        memory, found = memory.with_doubts(kind, doubts), {**found, **new}
    if enough:
        memory = replace(memory, fresh=frozenset(o for o in memory.fresh if o.kind != kind))
    return memory, dict(sorted(found.items()))


def _unlike_others(
    votes: SiteStatistics,
    fresh: Set[str],
    in_league: Mapping[str, list[Finding]],
    config: AdmissionConfig,
) -> dict[str, Verdict]:
    found, peers = {}, {parent: votes.from_release(parent) for parent in set(votes.parents)}
    for site, parent, values in votes.each():
        if site not in fresh:
            continue
        compared = Comparisons(
            values=values,
            votes=votes,
            peers=peers[parent],
            complete=True,
            few=FEW,
            config=config,
        )
        findings = [f for check in (*outliers.FREE, outliers.outputs) for f in check(compared)]
        verdict = Verdict.of([*findings, *in_league.get(site, ())])
        if not verdict.admitted:
            found[site] = verdict
    return found


def _alike(memory: History, kind: str, config: AdmissionConfig) -> dict[str, list[Finding]]:
    """Findings by site about updates in one direction, from starts of one release in a round."""
    found: dict[str, list[Finding]] = {}
    groups: dict[tuple[int, str], list[int]] = {}
    for index, source in enumerate(memory.sources):
        if source.kind == kind:
            groups.setdefault((source.round, source.parent), []).append(index)
    for rows in groups.values():
        sites = [memory.sources[row].site for row in rows]
        directions = memory.directions[rows].double()
        limit = least_angle(directions, sites, config)
        if limit is None:
            continue
        # Rows are in the order in which they came: of two that are alike, the later one is held.
        came = {site: place for place, site in enumerate(dict.fromkeys(sites))}
        order = torch.tensor([came[site] for site in sites])
        nearest = torch.cat(
            [
                (some @ directions.T).masked_fill_(order >= own[:, None], -1).amax(dim=1)
                for some, own in zip(directions.split(_AT_ONCE), order.split(_AT_ONCE), strict=True)
            ]
        )
        for row, cosine in enumerate(nearest.tolist()):
            if cosine > limit:
                figures = {"cosine": cosine, "most": limit}
                finding = Finding(code="alike", action="quarantine", figures=figures)
                found.setdefault(sites[row], []).append(finding)
    return found
