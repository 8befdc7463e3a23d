"""Between submissions and the records of a zoo."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import torch

from f2l_fed.admission.memory import Memory
from f2l_fed.admission.seed import Admitted
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


def admitted_in(snapshot: Snapshot, memory: Memory | None = None) -> Iterator[Admitted]:
    """What a zoo holds and a memory does not, one submission at a time, in the order of rounds.

    ``seeded(admitted_in(snapshot, memory), anatomy, anchor, memory)`` builds a memory, or brings
    one up to date that was saved before the last submissions came.
    """
    known = {owner[:2] for owner in memory.owners} if memory is not None else set()
    records = sorted(snapshot.records(), key=lambda r: (r.round, r.site, r.commit, r.row))
    for (number, site), group in groupby(records, key=lambda r: (r.round, r.site)):
        if (site, number) in known:
            continue
        rows = list(group)
        yield Admitted(
            site=site,
            round=number,
            parent=rows[0].parent,
            weights=torch.from_numpy(snapshot.weights(rows)),
            probes=torch.from_numpy(snapshot.contexts(rows)),
            metrics=[row.metrics for row in rows],
        )
