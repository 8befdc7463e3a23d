"""Submissions as records of a zoo, and the admission history rebuilt from such records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.admission.features import HEAD, NORM, PROBE, Features, extract_features, row_factors
from f2l_fed.admission.history import History
from f2l_fed.admission.submission import Submission
from f2l_fed.admission.weight_sketch import WeightSketch
from f2l_fed.zoo.reading.snapshot import Snapshot
from f2l_fed.zoo.records import RELEASED, NewRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmittedRecords:
    """The records of one site and round in a zoo.

    Args:
        site: The site.
        round: The round.
        parent: The release that made the starts; "" for the anchor.
        weights: (m, D) float32.
        probes: (m, D) float32, the contexts.
        metrics: Metrics of each record; "update_norm" and `RELEASED` are used.
    """

    site: str
    round: int
    parent: str
    weights: Tensor
    probes: Tensor
    metrics: Sequence[Mapping[str, float]]


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


def synchronise_history(
    history: History, snapshot: Snapshot, sketch: WeightSketch, anchor: Tensor, recall: int
) -> History:
    """The history brought up to date with a zoo.

    Args:
        history: The admission history.
        snapshot: Snapshot of the zoo. Sites that it has lost records of are removed from the
            history, and submissions that the history lacks are added.
        sketch: Sketches weights.
        anchor: (D,) float32, the lineage's first anchor.
        recall: Rounds of a site of which networks are remembered.
    """
    rounds = snapshot.rounds()
    known = history.signature_ids
    for site in {one.site for one in known if one.round not in rounds.get(one.site, ())}:
        history = history.without(site)
    return extend_history(read_admitted(snapshot, recall, history), sketch, anchor, history)


def read_admitted(
    snapshot: Snapshot, recall: int, history: History | None = None
) -> Iterator[AdmittedRecords]:
    """Reads the records of each site's last rounds that a history lacks, in the order of rounds.

    ``extend_history(read_admitted(snapshot, recall, history), sketch, anchor, history)`` builds a
    history, or brings one up to date that was saved before the last submissions came.
    """
    known = {one[:2] for one in history.signature_ids} if history is not None else set()
    missing = sorted(
        (number, site)
        for site, rounds in snapshot.rounds().items()
        for number in sorted(rounds)[-recall:]
        if (site, number) not in known
    )
    for number, site in missing:
        rows = sorted(snapshot.records(site=site, round=number), key=lambda r: (r.commit, r.row))
        yield AdmittedRecords(
            site=site,
            round=number,
            parent=rows[0].parent,
            weights=torch.from_numpy(snapshot.weights(rows)),
            probes=torch.from_numpy(snapshot.contexts(rows)),
            metrics=[row.metrics for row in rows],
        )


def extend_history(
    admitted: Iterable[AdmittedRecords],
    sketch: WeightSketch,
    anchor: Tensor,
    history: History | None = None,
) -> History:
    """The history with the records of a zoo, one submission at a time, oldest round first.

    A zoo doesn't have the starts of later rounds, so only the figures that need no start are
    known of them: they can be compared in full from the next round on. A submission that a person
    released from quarantine is known to be an outlier: it does not enter the statistics, and
    `review_cohort` does not judge it again.

    Args:
        admitted: In ascending order of rounds; read one by one.
        sketch: Sketches weights.
        anchor: (D,) float32, the lineage's first anchor.
        history: The history to extend; an empty one if left out.
    """
    history = history or History()
    for number, one in enumerate(admitted):
        if not number:
            history = history.copy()
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
        features = extract_features(submission, sketch)
        history.admit(
            _without_starts(features, one, sketch) if one.parent else features,
            counted=not any(metrics.get(RELEASED) for metrics in one.metrics),
        )
    return history


def _without_starts(features: Features, one: AdmittedRecords, sketch: WeightSketch) -> Features:
    """The features that need no starts; the length of updates is in the records' metrics."""
    known = {name: features.values[name] for name in (PROBE, HEAD)}
    norms = [metrics.get("update_norm", 0.0) for metrics in one.metrics]
    if norms and min(norms) > 0:
        known[NORM] = (torch.tensor(norms).double() * row_factors(one.weights, sketch)).log()
    return Features(
        id=features.id,
        values=known,
        signatures=features.signatures,
        lengths=features.lengths,
        directions=features.directions[:0],
    )
