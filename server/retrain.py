"""Retraining: from the zoo's newest records to a candidate release."""

from __future__ import annotations

from pathlib import Path

import torch

from f2l_fed.admission import outliers
from f2l_fed.audit import Audit
from f2l_fed.errors import RoundError
from f2l_fed.evaluate import Records
from f2l_fed.generator import fit_generator
from f2l_fed.seeds import generator_for
from f2l_fed.zoo import Record
from f2l_fed.zoo.snapshot import Snapshot
from server.federation import Federation
from server.releases import Release


def retrain(root: Path, id: str, commit: int) -> Release:
    """Fits a generator on one snapshot of the zoo and writes it as a candidate.

    Args:
        root: The federation's folder.
        id: Id of the new release; one that exists is replaced, so that a repetition is harmless.
        commit: The snapshot.

    Raises:
        RoundError: If the snapshot holds too few sites.
    """
    federation = Federation.open(root)
    config = federation.config
    snapshot = federation.zoo.snapshot(commit)
    newest = sorted(snapshot.records(latest_per_site=True), key=lambda record: record.site)
    left_out = outliers(
        {record.site: record.metrics.get("update_norm", 0.0) for record in newest},
        config.admission,
    )
    used = [record for record in newest if record.site not in left_out]
    if len(used) < config.round.minimum:
        raise RoundError(
            "too few sites for a retraining",
            where=f"commit {commit} of the zoo",
            expected=f"at least {config.round.minimum}",
            got=str(len(used)),
            remedy="Add sites, or lower round.minimum.",
        )
    records = read_records(snapshot, used)
    fit = fit_generator(
        records.contexts,
        records.weights,
        federation.symmetry,
        config.generator,
        generator_for(config.lineage, id, "retrain"),
    )
    parent = federation.releases.promoted()
    release = Release(
        id=id,
        state="candidate",
        parent=parent.id if parent is not None and parent.id != id else "",
        snapshot=commit,
        sites=tuple(record.site for record in used),
        records=tuple(record.key for record in used),
        left_out=left_out,
        figures={
            **fit.figures(),
            **Audit.of(records.weights, fit.held_out, fit.drawn).figures(),
        },
        parameters=federation.target.layout.size,
    )
    return federation.releases.write_candidate(release, fit)


def read_records(snapshot: Snapshot, records: list[Record]) -> Records:
    """The contexts and weights of records, as matrices in their order."""
    return Records(
        contexts=torch.from_numpy(snapshot.contexts(records)),
        weights=torch.from_numpy(snapshot.weights(records)),
    )


def release_records(federation: Federation, release: Release) -> Records:
    """The records that a release was fitted on, in the order of its sites."""
    snapshot = federation.zoo.snapshot(release.snapshot)
    by_key = {record.key: record for record in snapshot.records()}
    return read_records(snapshot, [by_key[key] for key in release.records])
