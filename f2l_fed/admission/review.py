"""The second look, at the end of an exchange: every admitted site against all others."""

from __future__ import annotations

import torch

from f2l_fed.admission import unlike
from f2l_fed.admission.case import Compared
from f2l_fed.admission.config import AdmissionConfig
from f2l_fed.admission.memory import Memory
from f2l_fed.admission.verdict import Finding, Verdict


def review(memory: Memory, kind: str, config: AdmissionConfig) -> dict[str, Verdict]:
    """Judges the newest submissions of all admitted sites once more, against all others.

    Whoever came first was compared with few. This depends on what was admitted and not on the
    order in which it came; whoever it finds is to be left out of the retraining, and its records
    stay in the zoo.

    Args:
        memory: After the exchange.
        kind: "first" or "later".
        config: Limits.

    Returns:
        The sites that something speaks against, by name; a finding that calls for shortening
        counts only where it was not shortened at once, so such sites are not among them.
    """
    votes, in_league = memory.votes_on(kind), _alike(memory, kind, config)
    found = {}
    for site in sorted(votes.sites):
        compared = Compared(values=votes.of(site), votes=votes, config=config)
        findings = [f for check in (*unlike.FREE, unlike.outputs) for f in check(compared)]
        verdict = Verdict.of([*findings, *in_league.get(site, ())])
        if not verdict.admitted:
            found[site] = verdict
    return found


def _alike(memory: Memory, kind: str, config: AdmissionConfig) -> dict[str, list[Finding]]:
    """Findings by site about updates in one direction, from starts of one release in a round."""
    found: dict[str, list[Finding]] = {}
    groups: dict[tuple[int, str], list[int]] = {}
    for index, source in enumerate(memory.sources):
        if source.kind == kind:
            groups.setdefault((source.round, source.parent), []).append(index)
    for rows in groups.values():
        sites = sorted({memory.sources[row].site for row in rows})
        number = torch.tensor([sites.index(memory.sources[row].site) for row in rows])
        cosines = memory.directions[rows] @ memory.directions[rows].T
        cosines[number[:, None] == number] = -1
        for row, cosine in enumerate(cosines.amax(dim=1).tolist()):
            if cosine > config.alike:
                figures = {"cosine": cosine, "most": config.alike}
                finding = Finding(code="alike", action="quarantine", figures=figures)
                found.setdefault(sites[int(number[row])], []).append(finding)
    return found
