"""Compaction: many small shards are merged to few large ones, one log entry each.

Records stay the same; only their location changes. The entry is durable before the first of the
small shards is deleted, and readers that miss one of those ask the index for its rows.
"""

from __future__ import annotations

import sqlite3

from f2l_fed.zoo.format import commit_log, shards
from f2l_fed.zoo.format.manifest import Manifest
from f2l_fed.zoo.index import record_of
from f2l_fed.zoo.reading.row_reader import RowLocations, RowReader
from f2l_fed.zoo.records import Commit, Record
from f2l_fed.zoo.storage.store import Store

MAX_BYTES = 64 << 20
"""Largest size of a merge, which is in memory twice."""

MOST_SMALL = 256
"""Small shards that are left as they are: a merge reads the whole log."""

_SMALL_SHARDS = "SELECT shard FROM live GROUP BY shard HAVING 2 * count(*) <= :limit"
_ROWS = f"""
WITH small AS ({_SMALL_SHARDS})
SELECT r.* FROM records r JOIN live l ON l.id = r.rowid JOIN small s ON s.shard = r.shard
WHERE (SELECT count(*) FROM small) > 1 ORDER BY r.rowid LIMIT :limit
"""


def rows_to_move(db: sqlite3.Connection, manifest: Manifest) -> tuple[Record, ...]:
    """The records of the next merge, within a question to the index; empty if there is none.

    A shard is small if it has at most half of the rows that fit into `MAX_BYTES`; a single small
    shard stays as it is. All rows are taken or as many as fit, so that each merge leaves fewer to
    move.

    Returns:
        Records in the order of the log.
    """
    limit = {"limit": rows_per_merge(manifest)}
    return tuple(record_of(row) for row in db.execute(_ROWS, limit).fetchall())


def count_small(db: sqlite3.Connection, manifest: Manifest) -> int:
    """The number of small shards, within a question to the index; see `rows_to_move`."""
    statement = f"SELECT count(*) FROM ({_SMALL_SHARDS})"
    return int(db.execute(statement, {"limit": rows_per_merge(manifest)}).fetchone()[0])


def rows_per_merge(manifest: Manifest) -> int:
    """The number of rows that fit into `MAX_BYTES`."""
    size_bytes = min(MAX_BYTES, shards.MAX_BYTES)
    return size_bytes // (4 * (manifest.weight_dim + manifest.context_dim))


def write(
    store: Store,
    manifest: Manifest,
    head: Commit,
    records: tuple[Record, ...],
    *,
    check: bool = True,
) -> commit_log.Entry:
    """Makes one shard of some records durable and drafts the entry that moves them there.

    Args:
        records: At least one, and no more than fit.
        check: Whether damaged rows are refused. Otherwise they are taken as they are; their
            checksums in the log still tell.

    Returns:
        The entry that is to follow ``head``.

    Raises:
        ZooError: If a row is missing or damaged, since its new shard would have a valid checksum.
    """
    rows, locations = RowReader(store, manifest), RowLocations.of(records)
    w, c = rows.read(locations, "w"), rows.read(locations, "c")
    if check:
        rows.check(locations, w, "w")
        rows.check(locations, c, "c")
    move = commit_log.MovedRows(
        sha256=shards.write(store, list(w), list(c)),
        rows=tuple((record.site, record.key) for record in records),
    )
    return commit_log.Entry(
        number=head.number + 1, previous=head.sha256, kind="merge", moves=(move,)
    )
