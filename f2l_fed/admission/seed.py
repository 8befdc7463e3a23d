"""A memory from what is in a zoo already, where there is no file of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.admission.anatomy import Anatomy
from f2l_fed.admission.measures import NORM, Measures, measure
from f2l_fed.admission.memory import Memory
from f2l_fed.admission.submission import Submission

RELEASED = "released"
"""Metric of records that a person released from quarantine: 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """The records of one site and round.

    Args:
        site: The site.
        round: The round.
        parent: The release that made the starts; "" for the anchor.
        weights: (m, D) float32.
        probes: (m, D) float32, the contexts.
        metrics: Of each record; "update_norm" and `RELEASED` are used.
    """

    site: str
    round: int
    parent: str
    weights: Tensor
    probes: Tensor
    metrics: Sequence[Mapping[str, float]]


def seeded(
    admitted: Iterable[Admitted], anatomy: Anatomy, anchor: Tensor, memory: Memory | None = None
) -> Memory:
    """Builds a memory, one submission at a time, oldest round first.

    What later rounds started from is not in a zoo, so of their figures only those are known that
    need no start: they come to be compared in full from the next round on. A submission that a
    person released from quarantine is known to be unlike the others: it has no vote, and `review`
    has nothing more to say of it.

    Args:
        admitted: In ascending order of rounds; read one by one.
        anatomy: Where the parts of a network lie.
        anchor: (D,) float32, the lineage's first.
        memory: What is remembered already; nothing if left out.
    """
    memory = memory or Memory()
    for one in admitted:
        submission = Submission(
            site=one.site,
            round=one.round,
            parent=one.parent,
            weights=one.weights,
            starts=anchor.expand_as(one.weights),
            probes=one.probes,
            numbers={},
            steps=0,
        )
        found = measure(submission, anatomy)
        memory = memory.with_admitted(
            _startless(found, one) if one.parent else found,
            votes=not any(metrics.get(RELEASED) for metrics in one.metrics),
        )
    return memory


def _startless(found: Measures, one: Admitted) -> Measures:
    known = {name: found.values[name] for name in ("probe", "head")}
    norms = [metrics.get("update_norm", 0.0) for metrics in one.metrics]
    if norms and min(norms) > 0:
        known[NORM] = torch.tensor(norms, dtype=torch.float64).log()
    return Measures(
        origin=found.origin,
        values=known,
        signatures=found.signatures,
        lengths=found.lengths,
        directions=found.directions[:0],
    )
