"""Compaction: many small shards of a site are merged to few large ones, in one log entry.

Records stay the same; only their location changes. The entry is durable before the first of the
small shards is deleted, and readers that miss one of those ask the index for its rows.
"""

from __future__ import annotations

import sqlite3
from itertools import groupby

from f2l_fed.zoo.format import commit_log, shards
from f2l_fed.zoo.format.manifest import Manifest
from f2l_fed.zoo.index import record_of
from f2l_fed.zoo.reading.row_reader import RowLocations, RowReader
from f2l_fed.zoo.records import Commit, Record
from f2l_fed.zoo.storage.store import Store

MAX_BYTES = 256 << 20
"""Largest size of a merge, which is in memory twice."""

_SMALL = """
WITH small AS (SELECT site, shard FROM live GROUP BY site, shard HAVING 2 * count(*) <= :limit),
     several AS (SELECT site FROM small GROUP BY site HAVING count(*) > 1)
SELECT r.* FROM records r JOIN live l ON l.id = r.rowid
           JOIN small s ON s.site = r.site AND s.shard = r.shard
WHERE r.site IN several ORDER BY r.site, r.rowid LIMIT :limit
"""


def rows_to_move(db: sqlite3.Connection, manifest: Manifest) -> tuple[Record, ...]:
    """The records of the next merge, within a question to the index; empty if there is none.

    A shard is small if it has at most half of the rows that fit into `MAX_BYTES`; a single small
    shard of a site stays as it is. Of a site, all rows are taken or as many as fit, so that each
    merge leaves fewer to move.

    Returns:
        Records by site, and in the order of the log.
    """
    size_bytes = min(MAX_BYTES, shards.MAX_BYTES)
    limit = size_bytes // (4 * (manifest.weight_dim + manifest.context_dim))
    return tuple(record_of(row) for row in db.execute(_SMALL, {"limit": limit}).fetchall())


def write(
    store: Store, manifest: Manifest, head: Commit, records: tuple[Record, ...]
) -> commit_log.Entry:
    """Makes the large shards durable, one for each site, and drafts the entry that will name them.

    Args:
        records: Records from `rows_to_move`, at least one.

    Returns:
        The entry that is to follow ``head``.

    Raises:
        ZooError: If a row is missing or damaged, since its new shard would have a valid checksum.
    """
    rows = RowReader(store, manifest)
    moves = []
    for site, group in groupby(records, lambda record: record.site):
        together = tuple(group)
        locations = RowLocations.of(together)
        w, c = rows.read(locations, "w"), rows.read(locations, "c")
        rows.check(locations, w, "w")
        rows.check(locations, c, "c")
        keys = tuple(record.key for record in together)
        moves.append(
            commit_log.MovedRows(sha256=shards.write(store, list(w), list(c)), site=site, keys=keys)
        )
    return commit_log.Entry(
        number=head.number + 1, previous=head.sha256, kind="merge", moves=tuple(moves)
    )
