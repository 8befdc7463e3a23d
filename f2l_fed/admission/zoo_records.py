"""Between submissions and the records of a zoo."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.admission.features import NORM, Features, extract_features
from f2l_fed.admission.history import History
from f2l_fed.admission.submission import Submission
from f2l_fed.admission.weight_sketch import WeightSketch
from f2l_fed.zoo import NewRecord, Snapshot


def new_records(submission: Submission) -> list[NewRecord]:
    """A judged submission as records for a zoo or a quarantine.

    Returns:
        One for each probe, with the network that goes with it, keyed ``round/site/episode``; its
        metrics are the declared numbers and "update_norm".
    """
    one = submission
    norms = one.updates.norm(dim=1).tolist()
    last = len(one.weights) - 1
    return [
        NewRecord(
            key=f"{one.round}/{one.site}/{episode}",
            site=one.site,
            round=one.round,
            parent=one.parent,
            weights=one.weights[min(episode, last)].numpy(),
            context=probe.numpy(),
            metrics={**one.numbers, "update_norm": norms[min(episode, last)]},
        )
        for episode, probe in enumerate(one.probes)
    ]


def admitted_in(
    snapshot: Snapshot, recall: int, memory: History | None = None
) -> Iterator[Admitted]:
    """What a zoo holds of each site's last rounds and a memory does not, in the order of rounds.

    ``seeded(admitted_in(snapshot, recall, memory), anatomy, anchor, memory)`` builds a memory, or
    brings one up to date that was saved before the last submissions came.
    """
    known = {owner[:2] for owner in memory.owners} if memory is not None else set()
    wanted = sorted(
        (number, site)
        for site, rounds in snapshot.rounds().items()
        for number in sorted(rounds)[-recall:]
        if (site, number) not in known
    )
    for number, site in wanted:
        rows = sorted(snapshot.records(site=site, round=number), key=lambda r: (r.commit, r.row))
        yield Admitted(
            site=site,
            round=number,
            parent=rows[0].parent,
            weights=torch.from_numpy(snapshot.weights(rows)),
            probes=torch.from_numpy(snapshot.contexts(rows)),
            metrics=[row.metrics for row in rows],
        )


def followed(
    memory: History, snapshot: Snapshot, anatomy: WeightSketch, anchor: Tensor, recall: int
) -> History:
    """A memory brought up to date with a zoo.

    Args:
        memory: As it was.
        snapshot: Of the zoo. What it has lost by an erasure is forgotten, what the memory does not
            know is measured.
        anatomy: Where the parts of a network lie.
        anchor: (D,) float32, the lineage's first.
        recall: Rounds of a site whose networks are remembered.
    """
    rounds = snapshot.rounds()
    for site in {o.site for o in memory.owners if o.round not in rounds.get(o.site, ())}:
        memory = memory.without(site)
    return seeded(admitted_in(snapshot, recall, memory), anatomy, anchor, memory)


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
    admitted: Iterable[Admitted],
    anatomy: WeightSketch,
    anchor: Tensor,
    memory: History | None = None,
) -> History:
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
    memory = memory or History()
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
        found = extract_features(submission, anatomy)
        memory = memory.with_admitted(
            _startless(found, one) if one.parent else found,
            votes=not any(metrics.get(RELEASED) for metrics in one.metrics),
        )
    return memory


def _startless(found: Features, one: Admitted) -> Features:
    known = {name: found.values[name] for name in ("probe", "head")}
    norms = [metrics.get("update_norm", 0.0) for metrics in one.metrics]
    if norms and min(norms) > 0:
        known[NORM] = torch.tensor(norms, dtype=torch.float64).log()
    return Features(
        origin=found.origin,
        values=known,
        signatures=found.signatures,
        lengths=found.lengths,
        directions=found.directions[:0],
    )
