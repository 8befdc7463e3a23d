"""Between submissions and the records of a zoo."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from f2l_fed.admission.anatomy import Anatomy
from f2l_fed.admission.memory import Memory
from f2l_fed.admission.seed import Admitted, seeded
from f2l_fed.admission.submission import Submission
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
    snapshot: Snapshot, recall: int, memory: Memory | None = None
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
    memory: Memory, snapshot: Snapshot, anatomy: Anatomy, anchor: Tensor, recall: int
) -> Memory:
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
