"""The second look, at the end of an exchange: every admitted site against all others."""

from __future__ import annotations

from collections.abc import Iterator

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
    """Findings by site about updates in one direction within a round."""
    return {site: [finding] for site, finding in _pairs(memory, kind, config)}


def _pairs(memory: Memory, kind: str, config: AdmissionConfig) -> Iterator[tuple[str, Finding]]:
    mine = [i for i, source in enumerate(memory.sources) if source.kind == kind]
    if not mine:
        return
    sources = [memory.sources[i] for i in mine]
    cosines = memory.directions[mine] @ memory.directions[mine].T
    for a, b in (cosines > config.alike).nonzero().tolist():
        if sources[a].site != sources[b].site and sources[a][1:] == sources[b][1:]:
            figures = {"cosine": float(cosines[a, b]), "most": config.alike}
            yield sources[a].site, Finding(code="alike", action="quarantine", figures=figures)
