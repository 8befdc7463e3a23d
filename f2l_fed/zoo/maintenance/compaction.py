"""Merging: many small shards of a site become few large ones, in one entry of the log.

Records stay what they are; only their place changes. The entry is durable before the first of the
small shards is deleted, and readers that look for one of those ask the index where its rows are.
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

# As much is in memory twice while it is moved.
MOST_BYTES = 256 << 20
_SMALL = """
WITH small AS (SELECT site, shard FROM live GROUP BY site, shard HAVING 2 * count(*) <= :limit),
     several AS (SELECT site FROM small GROUP BY site HAVING count(*) > 1)
SELECT r.* FROM records r JOIN live l ON l.id = r.rowid
           JOIN small s ON s.site = r.site AND s.shard = r.shard
WHERE r.site IN several ORDER BY r.site, r.rowid LIMIT :limit
"""


def rows_to_move(db: sqlite3.Connection, manifest: Manifest) -> tuple[Record, ...]:
    """What the next merge moves, within a question to the index; empty if nothing is left to merge.

    A shard is small if it has at most half of the rows that fit into `MOST_BYTES`; a single small
    shard of a site stays as it is. Of a site, all rows are taken or as many as fit, so that each
    merge leaves fewer to move.

    Returns:
        Records by site, and in the order of the log.
    """
    most = min(MOST_BYTES, shards.MAX_BYTES)
    limit = most // (4 * (manifest.weight_dim + manifest.context_dim))
    return tuple(record_of(row) for row in db.execute(_SMALL, {"limit": limit}).fetchall())


def write(
    store: Store, manifest: Manifest, head: Commit, records: tuple[Record, ...]
) -> commit_log.Entry:
    """Makes the large shards durable, one for each site, and drafts the entry that will name them.

    Args:
        records: From `rows_to_move`, at least one.

    Returns:
        The entry that is to follow ``head``.

    Raises:
        ZooError: If a row is missing or damaged: its new shard would vouch for it.
    """
    rows = RowReader(store, manifest)
    moves = []
    for site, group in groupby(records, lambda record: record.site):
        held = tuple(group)
        spots = RowLocations.of(held)
        w, c = rows.read(spots, "w"), rows.read(spots, "c")
        rows.check(spots, w, "w")
        rows.check(spots, c, "c")
        keys = tuple(record.key for record in held)
        moves.append(
            commit_log.MovedRows(sha256=shards.write(store, list(w), list(c)), site=site, keys=keys)
        )
    return commit_log.Entry(
        number=head.number + 1, previous=head.sha256, kind="merge", moves=tuple(moves)
    )
