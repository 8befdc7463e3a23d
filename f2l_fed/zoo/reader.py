"""Reading a snapshot in batches: shuffled, shared among ranks, and resumable."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from f2l_fed.errors import UsageError, ZooError
from f2l_fed.zoo.index import record_of
from f2l_fed.zoo.query import Query
from f2l_fed.zoo.records import Floats, Record
from f2l_fed.zoo.rows import Rows, Spot, require_readable
from f2l_fed.zoo.snapshot import Snapshot

WINDOW_BYTES = 64 << 20
_SPOTS = (
    "SELECT rowid, number, shard, row, key, site, w_crc32, c_crc32 FROM records WHERE rowid IN ({})"
)
_MOST_ASKED = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a reader is: the first batch that it has not given out.

    Args:
        epoch: How often all rows have been read.
        batch: Number of the batch among those of all ranks.
    """

    epoch: int = 0
    batch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Some rows.

    Args:
        weights: (n, D) float32; read-only where it lies in a mapped file.
        contexts: (n, C) float32; likewise.
        keys: Of the records, in the order of the rows.
        next: Where to go on after it.
    """

    weights: Floats
    contexts: Floats
    keys: tuple[str, ...]
    next: Position
    _ids: NDArray[np.int64] = field(repr=False)
    _snapshot: Snapshot = field(repr=False)

    def records(self) -> tuple[Record, ...]:
        """All that the log says of its rows, in their order."""
        ids = [int(id) for id in self._ids]

        def question(db: sqlite3.Connection) -> dict[int, Record]:
            marks = ",".join("?" * len(ids))
            query = f"SELECT rowid, * FROM records WHERE rowid IN ({marks})"
            return {row[0]: record_of(row[1:]) for row in db.execute(query, ids).fetchall()}

        found = self._snapshot.index.ask(question)
        return tuple(found[id] for id in ids)


class Reader:
    """Gives out the rows of a snapshot, each once an epoch.

    Shuffling goes by shards and, within as many of them as make a window, by rows: nearly as random
    as one permutation of all rows, and every part of a file is still read in one go. Order and
    batches follow from snapshot, query, seed and epoch, so any process finds the same ones again.

    It holds eight bytes for each row of the snapshot and one window; the rest of the zoo costs it
    nothing.

    Args:
        snapshot: What to read.
        query: Which of its records.
        batch_size: Rows in a batch; the last of an epoch may have fewer.
        seed: Of the order; None for the order of the log.
        rank: Which of the ranks this one is, from 0.
        ranks: How many share the rows. Batch k goes to rank k modulo this.
        even: Whether to leave out the last batches, so that each rank gets as many full ones.
        check: Whether to compare each row with its checksum.
        window_bytes: How much is shuffled at a time.

    Raises:
        UsageError: If a number can't be.
        ZooError: While reading, if a row is damaged, or was erased after the snapshot.
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
    ) -> None:
        if batch_size < 1 or ranks < 1 or not 0 <= rank < ranks:
            raise UsageError(
                "a reader can't be",
                expected="batch_size >= 1, 0 <= rank < ranks",
                got=f"batch_size {batch_size}, rank {rank} of {ranks}",
            )
        self._snapshot = snapshot
        self._batch_size, self._seed = batch_size, seed
        self._rank, self._ranks, self._even = rank, ranks, even
        about = snapshot.manifest
        self._rows = Rows(snapshot.store, about, check=check)
        self._window = max(batch_size, window_bytes // (4 * (about.weight_dim + about.context_dim)))
        self._ids, self._runs = _plan(snapshot, query or Query(), self._window)

    def __len__(self) -> int:
        """How many rows an epoch has, for all ranks together."""
        return len(self._ids)

    @property
    def batches_per_epoch(self) -> int:
        """How many batches an epoch has, for all ranks together."""
        if self._even:
            return len(self._ids) // self._batch_size // self._ranks * self._ranks
        return -(-len(self._ids) // self._batch_size)

    def epoch(self, start: Position | None = None) -> Iterator[Batch]:
        """This rank's batches from a position to the end of its epoch."""
        at = start or Position()
        order, size, count = self._order(at.epoch), self._batch_size, self.batches_per_epoch
        numbers = [n for n in range(at.batch, count) if n % self._ranks == self._rank]
        ahead = max(1, self._window // size)
        for first in range(0, len(numbers), ahead):
            wanted = {n: order[n * size : (n + 1) * size] for n in numbers[first : first + ahead]}
            spots = self._spots(np.concatenate(list(wanted.values())))
            for number, ids in wanted.items():
                last = number + 1 == count
                epoch, batch = (at.epoch + 1, 0) if last else (at.epoch, number + 1)
                yield self._batch(ids, spots, Position(epoch=epoch, batch=batch))

    def _batch(
        self, ids: NDArray[np.int64], spots: Mapping[int, Spot], following: Position
    ) -> Batch:
        found = [spots[id] for id in ids.tolist()]
        try:
            weights, contexts = (self._rows.read(found, matrix) for matrix in ("w", "c"))
        except ZooError:
            # An erasure that came in between explains a missing file better.
            require_readable(self._snapshot.index, found, self._snapshot.commit)
            raise
        return Batch(
            weights=weights,
            contexts=contexts,
            keys=tuple(spot.key for spot in found),
            next=following,
            _ids=ids,
            _snapshot=self._snapshot,
        )

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """Row ids of an epoch, in the order in which they are given out."""
        if self._seed is None:
            return self._ids
        name = f"{self._seed}/{epoch}".encode()
        stream = np.random.default_rng(list(hashlib.sha256(name).digest()))
        order = np.empty_like(self._ids)
        filled = begun = 0
        for run in stream.permutation(len(self._runs) - 1):
            rows = self._ids[self._runs[run] : self._runs[run + 1]]
            order[filled : filled + len(rows)] = rows
            filled += len(rows)
            if filled - begun >= self._window:
                stream.shuffle(order[begun:filled])
                begun = filled
        stream.shuffle(order[begun:filled])
        return order

    def _spots(self, ids: NDArray[np.int64]) -> dict[int, Spot]:
        def question(db: sqlite3.Connection) -> dict[int, Spot]:
            found: dict[int, Spot] = {}
            for start in range(0, len(ids), _MOST_ASKED):
                part = [int(id) for id in ids[start : start + _MOST_ASKED]]
                rows = db.execute(_SPOTS.format(",".join("?" * len(part))), part).fetchall()
                found.update((row[0], Spot(*row[1:])) for row in rows)
            return found

        found = self._snapshot.index.ask(question)
        require_readable(self._snapshot.index, found.values(), self._snapshot.commit)
        return found


def _plan(
    snapshot: Snapshot, query: Query, window: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids of all rows in the order of the log, and where one shard, or a window of it, ends."""

    def question(db: sqlite3.Connection) -> tuple[NDArray[np.int64], list[int]]:
        ends, last, begun, filled = [0], "", 0, 0
        parts = [np.empty(0, np.int64)]
        cursor = db.execute(*query.sql("rowid, shard", snapshot.commit))
        while rows := cursor.fetchmany(10_000):
            for offset, (_, shard) in enumerate(rows):
                place = filled + offset
                if place and (shard != last or place - begun >= window):
                    ends.append(place)
                    begun = place
                last = shard
            parts.append(np.array([id for id, _ in rows], np.int64))
            filled += len(rows)
        return np.concatenate(parts), [*ends, filled]

    ids, ends = snapshot.index.ask(question)
    return ids, np.array(ends, np.int64)
