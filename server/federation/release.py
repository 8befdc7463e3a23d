"""The record of a release: a generator version, its state and what it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

State = Literal["candidate", "promoted", "retired"]
"""The state of a release: judged or waiting for it, what sites get, or what they got before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The record of a generator version.

    Args:
        id: Five digits, the round that made it.
        state: A candidate has not passed the gate, which may have rejected it; one release at a
            time is promoted.
        parent: The release that was promoted when it was made; "" for the first.
        snapshot: Commit of the zoo it was fitted on.
        sites: The sites whose records it was fitted on.
        records: Keys of these records, as many for each site, in the order of its expected weights.
        anchors: Anchors that the lineage has had; its probes start from the last of them.
        left_out: Sites with records that were left out, with the finding of the cohort review.
        figures: Figures of the fit and the audit.
        reasons: Why the gate rejected it; empty if promoted.
        parameters: D.
        chain: SHA-256 of all bodies of the lineage up to the next one, oldest first; empty where
            whole networks are generated.
        body_sites: The sites whose updates are in the next body.
        temperatures: Divisors of a site's logits, each with the number of examples per class that
            it was learnt for.
        model: What sites' networks are made by, and why, in words.
        families: Of a mixed fleet, the family of each of ``sites``; else empty, as in releases by
            versions that did not keep them.
        scales: Digest of the scales of numbers that all sites have agreed on; "" for none.
    """

    id: str
    state: State
    parent: str
    snapshot: int
    sites: tuple[str, ...] = ()
    records: tuple[str, ...] = ()
    anchors: int = 1
    left_out: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    parameters: int = 0
    chain: tuple[str, ...] = ()
    body_sites: tuple[str, ...] = ()
    temperatures: tuple[tuple[int, float], ...] = ()
    model: str = ""
    families: tuple[int, ...] = ()
    scales: str = ""
