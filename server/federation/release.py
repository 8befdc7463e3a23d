"""TODO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

State = Literal["candidate", "promoted", "retired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What is known of a generator version.

    Args:
        id: Five digits, the round that made it.
        state: A candidate has not passed the gate; one release at a time is promoted.
        parent: The release that was promoted when it was made; "" for the first.
        snapshot: Commit of the zoo it was fitted on.
        sites: The sites whose records it was fitted on.
        records: Keys of these records, as many for each site, in the order of its expected weights.
        anchors: Anchors that the lineage has had; its probes start from the last of them.
        left_out: Sites whose records were left out, with what the second look found.
        figures: What the fit and the audit measured.
        reasons: Why the gate held it; empty if promoted.
        parameters: D.
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
