"""Read plans: the rows of a snapshot and their locations, now and when it was taken."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from f2l_fed.zoo.reading.query import Query
from f2l_fed.zoo.reading.row_reader import RowLocations
from f2l_fed.zoo.reading.snapshot import Snapshot

_BATCH = 10_000
_MOVED_SINCE = """
SELECT record, shard, row, min(number) FROM moves WHERE number > :commit GROUP BY record
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadPlan:
    """Ids and locations of all rows, in the order of the log.

    Args:
        ids: (n,) int64, ids in the index.
        locations: Their present locations.
        run: (n,) int32, equal for rows that are adjacent in a file.
    """

    ids: NDArray[np.int64]
    locations: RowLocations
    run: NDArray[np.int32]


def make_plan(snapshot: Snapshot, query: Query) -> ReadPlan:
    """Finds all rows of a snapshot that meet a query."""
    columns = np.dtype(
        [("id", np.int64), ("shard", np.int32), ("row", np.int32), ("crc32", np.uint32, 2)]
    )

    def question(db: sqlite3.Connection) -> tuple[NDArray[np.void], dict[str, int]]:
        query.check_metrics(db, snapshot.commit)
        known: dict[str, int] = {}
        parts = [np.empty(0, columns)]
        statement = query.sql("rowid, shard, row, w_crc32, c_crc32", snapshot.commit)
        cursor = db.execute(*statement)
        while rows := cursor.fetchmany(_BATCH):
            part = np.empty(len(rows), columns)
            ids, names, numbers, w, c = zip(*rows, strict=True)
            part["id"], part["row"] = ids, numbers
            part["crc32"] = np.transpose([w, c])
            part["shard"] = [known.setdefault(name, len(known)) for name in names]
            parts.append(part)
        return np.concatenate(parts), known

    found, known = snapshot.index.ask(question)
    names = np.array([bytes.fromhex(sha256) for sha256 in known], "V32")
    # Copies: a view would keep all columns in memory.
    shard, row = found["shard"].copy(), found["row"].copy()
    apart = (np.diff(shard, prepend=shard[:1]) != 0) | (np.diff(row, prepend=row[:1] - 1) != 1)
    return ReadPlan(
        ids=found["id"].copy(),
        locations=RowLocations(names=names, shard=shard, row=row, crc32=found["crc32"].copy()),
        run=np.cumsum(apart, dtype=np.int32),
    )


def original_locations(
    snapshot: Snapshot, found: ReadPlan
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The shards and rows of a plan when its snapshot was taken.

    Merges don't change them, so an order that follows from them is the same at any time.

    Returns:
        (n,) int32, shards, numbered in the order of their first rows, and (n,) int32, rows in them.
    """
    since = {"commit": snapshot.commit}
    moved = snapshot.index.ask(lambda db: db.execute(_MOVED_SINCE, since).fetchall())
    shard, row = found.locations.shard, found.locations.row
    if not moved:
        return shard, row
    then = {id: (sha256, number) for id, sha256, number, _ in moved}
    now = [name.tobytes().hex() for name in found.locations.names]
    known: dict[str, int] = {}
    shard, row = shard.copy(), row.copy()
    for place, id in enumerate(found.ids.tolist()):
        sha256, row[place] = then.get(id) or (now[shard[place]], row[place])
        shard[place] = known.setdefault(sha256, len(known))
    return shard, row
