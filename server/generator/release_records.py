"""The records that a release was fitted on, without those erased since."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from f2l_fed.errors import RecordErased
from f2l_fed.generator.candidates import FittedRecords
from f2l_fed.matrices.blocks import blocks
from f2l_fed.matrices.workspace import IN_MEMORY, Workspace
from f2l_fed.zoo import Record
from f2l_fed.zoo.reading.snapshot import Snapshot
from f2l_fed.zoo.records import Floats
from server.federation.folder import Federation
from server.federation.release import Release

T = TypeVar("T")


def while_erasing(federation: Federation, job: Callable[[], T]) -> T:
    """Repeats a job that reads records if some are erased meanwhile; the job leaves those out."""
    while True:
        erased = federation.zoo.erasures()
        try:
            return job()
        except RecordErased:
            if federation.zoo.erasures() == erased:
                raise


def read_records(
    snapshot: Snapshot, records: list[Record], work: Workspace = IN_MEMORY
) -> FittedRecords:
    """Reads the contexts and weights of records, as matrices in their order.

    Args:
        snapshot: Of the zoo.
        records: Records of it.
        work: Where the matrices lie; a few rows are read at a time.
    """

    def read(rows: Callable[[Sequence[Record]], Floats], width: int) -> Tensor:
        matrix = work.empty(len(records), width)
        for some in blocks(width, len(records)):
            matrix[some] = torch.from_numpy(rows(records[some]))
        return matrix

    return FittedRecords(
        contexts=read(snapshot.contexts, snapshot.manifest.context_dim),
        weights=read(snapshot.weights, snapshot.manifest.weight_dim),
    )


def rows_left(federation: Federation, release: Release) -> list[int]:
    """The rows of a release's sites without those that were erased since it was fitted."""
    erased = federation.zoo.erasures()
    return [row for row, s in enumerate(release.sites) if erased.get(s, 0) <= release.snapshot]


def release_records(
    federation: Federation, release: Release, rows: Sequence[int] | None = None
) -> FittedRecords:
    """Reads the records that a release was fitted on, in the order of its sites.

    Args:
        federation: The folder.
        release: The release.
        rows: Rows of its sites; all if left out.

    Raises:
        RecordErased: If one of these was erased; `rows_left` names the others.
    """
    snapshot = federation.zoo.snapshot(release.snapshot)
    keys: Sequence[str] = release.records
    if rows is not None:
        episodes = len(keys) // max(len(release.sites), 1)
        keys = [keys[row * episodes + episode] for row in rows for episode in range(episodes)]
    by_key = {record.key: record for record in snapshot.records(keys=keys)}
    return read_records(snapshot, [by_key[key] for key in keys])
