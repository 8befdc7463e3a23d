"""A reader of snapshots in batches: shuffled, shared among ranks, and resumable.

For training on zoos that don't fit into memory; the server reads whole snapshots, and only programs
of one's own and the benchmarks use batches.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from f2l_fed.errors import UsageError, ZooError
from f2l_fed.zoo.index import record_of
from f2l_fed.zoo.reading.query import Query
from f2l_fed.zoo.reading.read_plan import make_plan, original_locations
from f2l_fed.zoo.reading.row_reader import Matrix, RowReader, require_readable
from f2l_fed.zoo.reading.snapshot import Snapshot
from f2l_fed.zoo.records import Floats, Record

Numbers = NDArray[np.int64] | slice
WINDOW_BYTES = 64 << 20
_BY_ID = "SELECT rowid, * FROM records WHERE rowid IN (SELECT value FROM json_each(?))"
_ERASED_SINCE = """
SELECT r.rowid FROM forgotten f JOIN records r ON r.site = f.site AND r.number < f.number
WHERE f.number > :commit
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """The position of a reader: the next batch.

    Args:
        epoch: Number of the epoch, from 0.
        batch: Number of the batch among those of all ranks.
    """

    epoch: int = 0
    batch: int = 0


class RecordBatch:
    """A batch of rows, which are read at the first access; made by `Reader.epoch`."""

    def __init__(self, reader: Reader, rows: Numbers, following: Position) -> None:
        self._reader, self._rows = reader, rows
        self.next = following
        """The position after it."""

    def __len__(self) -> int:
        rows = self._rows
        return rows.stop - rows.start if isinstance(rows, slice) else len(rows)

    @cached_property
    def weights(self) -> Floats:
        """(n, D) float32; read-only, and not copied, if it lies in one piece in a mapped file."""
        return self._reader.read(self._rows, "w")

    @cached_property
    def contexts(self) -> Floats:
        """(n, C) float32; likewise."""
        return self._reader.read(self._rows, "c")

    @cached_property
    def records(self) -> tuple[Record, ...]:
        """The records of its rows, in their order."""
        return self._reader.records(self._rows)


class Reader:
    """A reader of the rows of a snapshot, each once an epoch.

    Shuffling goes by shards and, within as many of them as make a window, by rows: nearly as random
    as one permutation of all rows, and every part of a file is still read in one go. Order and
    batches follow from snapshot, query, seed and epoch, so they are the same in any process.

    A site that is erased while an epoch is read may still be read from files that are open; the
    next epoch is refused. A merge changes where rows are read from, but not the order of a snapshot
    from before it.

    It needs some 40 bytes of memory for each row of the snapshot and a copy of one batch, however
    large rows are.

    Args:
        snapshot: The snapshot.
        query: Conditions on its records.
        batch_size: Rows in a batch; the last of an epoch may have fewer.
        seed: Seed of the order; None for the order of the log.
        rank: Number of this rank, from 0.
        ranks: Number of ranks that share the rows. Batch k goes to rank k modulo this.
        even: Whether to leave out the last batches, so that all ranks get as many full ones.
        check: Whether to compare each row with its checksum the first time it is read.
        window_bytes: Size of the rows that are shuffled at a time.
        ahead: Number of batches of which weights are read ahead, in a thread; useful with an
            object store.

    Raises:
        UsageError: If a number is out of range.
        ZooError: While reading, if a row is damaged; `RecordErased` if its site was erased after
            the snapshot.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        query: Query | None = None,
        *,
        batch_size: int,
        seed: int | None = None,
        rank: int = 0,
        ranks: int = 1,
        even: bool = False,
        check: bool = True,
        window_bytes: int = WINDOW_BYTES,
        ahead: int = 0,
    ) -> None:
        if batch_size < 1 or ranks < 1 or not 0 <= rank < ranks:
            raise UsageError(
                "invalid batch size or rank",
                expected="batch_size >= 1, 0 <= rank < ranks",
                got=f"batch_size {batch_size}, rank {rank} of {ranks}",
            )
        self._snapshot, self._query = snapshot, query or Query()
        self._batch_size, self._seed = batch_size, seed
        self._rank, self._ranks, self._even, self._ahead = rank, ranks, even, ahead
        about = snapshot.manifest
        self._rows = RowReader(snapshot.store, about)
        self._window = max(batch_size, window_bytes // (4 * (about.weight_dim + about.context_dim)))
        self._plan = make_plan(snapshot, self._query)
        self._ids = self._plan.ids
        self._shard, self._row = original_locations(snapshot, self._plan)
        self._unchecked = {matrix: np.full(len(self._ids), check) for matrix in ("w", "c")}

    def __len__(self) -> int:
        """The number of rows in an epoch, for all ranks together."""
        return len(self._ids)

    @property
    def batches_per_epoch(self) -> int:
        """The number of batches in an epoch, for all ranks together."""
        if self._even:
            return len(self) // self._batch_size // self._ranks * self._ranks
        return -(-len(self) // self._batch_size)

    def epoch(self, start: Position | None = None) -> Iterator[RecordBatch]:
        """This rank's batches from a position to the end of its epoch."""
        self._require_readable()
        waiting: deque[RecordBatch] = deque()
        with ThreadPoolExecutor(1) as pool:
            for batch in self._batches(start):
                if self._ahead:
                    # A failure there is repeated, and seen, where the weights are asked for.
                    pool.submit(getattr, batch, "weights")
                waiting.append(batch)
                if len(waiting) > self._ahead:
                    yield waiting.popleft()
            yield from waiting

    def _batches(self, start: Position | None) -> Iterator[RecordBatch]:
        at = start or Position()
        order, count, size = self._order(at.epoch), self.batches_per_epoch, self._batch_size
        for number in range(at.batch, count):
            if number % self._ranks == self._rank:
                last = number + 1 == count
                epoch, batch = (at.epoch + 1, 0) if last else (at.epoch, number + 1)
                part = slice(number * size, min((number + 1) * size, len(self)))
                rows = part if order is None else order[part]
                yield RecordBatch(self, rows, Position(epoch=epoch, batch=batch))

    def read(self, rows: Numbers, matrix: Matrix) -> Floats:
        """Rows by their numbers in the snapshot; `RecordBatch` is the way to ask for them."""
        # Another thread may find that rows were moved, and replace the plan.
        unchecked, planned = self._unchecked[matrix], self._plan
        locations, run = planned.locations, planned.run
        try:
            if isinstance(rows, slice) and run[rows.start] == run[rows.stop - 1]:
                first = int(locations.row[rows.start])
                last = first + rows.stop - rows.start
                found = self._rows.read_adjacent(locations.sha256(rows.start), first, last, matrix)
            else:
                found = self._rows.read(locations[rows], matrix)
            if unchecked[rows].any():
                self._rows.check(locations[rows], found, matrix)
                unchecked[rows] = False
        except ZooError:
            # An erasure or a merge in between explains a missing file better.
            require_readable(self._snapshot.index, self.records(rows), self._snapshot.commit)
            self._plan = make_plan(self._snapshot, self._query)
            if self._plan.locations.same_places(locations):
                raise
            return self.read(rows, matrix)
        return found

    def records(self, rows: Numbers) -> tuple[Record, ...]:
        """Records by their rows' numbers in the snapshot."""
        ids = self._ids[rows].tolist()

        def question(db: sqlite3.Connection) -> dict[int, Record]:
            found = db.execute(_BY_ID, (json.dumps(ids),)).fetchall()
            return {row[0]: record_of(row[1:]) for row in found}

        by_id = self._snapshot.index.ask(question)
        return tuple(by_id[id] for id in ids)

    def _require_readable(self) -> None:
        since = {"commit": self._snapshot.commit}
        index = self._snapshot.index
        gone = index.ask(lambda db: [id for (id,) in db.execute(_ERASED_SINCE, since)])
        if gone:
            erased = np.flatnonzero(np.isin(self._ids, gone))
            require_readable(index, self.records(erased[:1]), self._snapshot.commit)

    def _order(self, epoch: int) -> NDArray[np.int64] | None:
        """Numbers of the rows in the order of an epoch; None for the order of the log."""
        if self._seed is None:
            return None
        name = f"{self._seed}/{epoch}".encode()
        stream = np.random.default_rng(list(hashlib.sha256(name).digest()))
        by_shard = np.lexsort((self._row, self._shard))
        runs = self._runs(self._shard[by_shard])
        order = np.empty(len(self), np.int64)
        filled = begun = 0
        for run in stream.permutation(len(runs) - 1):
            first, last = runs[run], runs[run + 1]
            order[filled : filled + last - first] = by_shard[first:last]
            filled += last - first
            if filled - begun >= self._window:
                stream.shuffle(order[begun:filled])
                begun = filled
        stream.shuffle(order[begun:filled])
        return order

    def _runs(self, shard: NDArray[np.int32]) -> NDArray[np.int64]:
        """The beginnings of shards, and of windows in shards that are longer."""
        starts = np.concatenate([[0], np.flatnonzero(np.diff(shard)) + 1, [len(shard)]])
        parts = [np.arange(first, last, self._window) for first, last in pairwise(starts)]
        return np.concatenate([*parts, [len(shard)]]).astype(np.int64)
