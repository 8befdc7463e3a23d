"""The records that a release was fitted on, without those erased since."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from f2l_fed.errors import RecordErased
from f2l_fed.generator.candidates import FittedRecords
from f2l_fed.zoo import Record
from f2l_fed.zoo.reading.snapshot import Snapshot
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


def read_records(snapshot: Snapshot, records: list[Record]) -> FittedRecords:
    """Reads the contexts and weights of records, as matrices in their order."""
    return FittedRecords(
        contexts=torch.from_numpy(snapshot.contexts(records)),
        weights=torch.from_numpy(snapshot.weights(records)),
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
