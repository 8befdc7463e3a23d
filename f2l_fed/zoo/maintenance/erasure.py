"""Erasure of a site: the files are deleted after the tombstone, even if the first attempt died.

Where a file has rows of other sites too, these move to another one first.
"""

from __future__ import annotations

import sqlite3

from f2l_fed.errors import ZooError
from f2l_fed.zoo.format import commit_log, shards
from f2l_fed.zoo.format.manifest import Manifest
from f2l_fed.zoo.index import Index, record_of
from f2l_fed.zoo.maintenance.compaction import rows_per_merge
from f2l_fed.zoo.records import Commit, Compaction, Record
from f2l_fed.zoo.storage.store import Store

_COUNTS = """
SELECT (SELECT count(*) FROM records WHERE site = :site),
       (SELECT count(*) FROM live WHERE site = :site)
"""
_VOID = """
SELECT shard, max(tombstone), max(last)
FROM (SELECT r.shard, min(f.number) AS tombstone, 1 AS last
      FROM forgotten f JOIN records r ON r.site = f.site AND r.number < f.number GROUP BY r.rowid
      UNION ALL
      SELECT m.shard, min(f.number), 0
      FROM forgotten f JOIN records r ON r.site = f.site AND r.number < f.number
      JOIN moves m ON m.record = r.rowid GROUP BY m.rowid) v
WHERE NOT EXISTS (SELECT 1 FROM live l WHERE l.shard = v.shard)
GROUP BY shard ORDER BY 2, 3, 1
"""

# A row that was sent again, to the bit, lies where the erased one did.
_REMAINING = """
WITH erased AS (SELECT r.rowid AS id, r.shard, r.row
                FROM forgotten f JOIN records r ON r.site = f.site AND r.number < f.number),
     void AS (SELECT shard, row FROM erased
              UNION SELECT m.shard, m.row FROM erased e JOIN moves m ON m.record = e.id),
     mixed AS (SELECT DISTINCT shard FROM void v
               WHERE NOT EXISTS (SELECT 1 FROM live l WHERE l.shard = v.shard AND l.row = v.row))
SELECT r.* FROM mixed m JOIN live l ON l.shard = m.shard JOIN records r ON r.rowid = l.id
ORDER BY r.rowid LIMIT :limit
"""


def count(db: sqlite3.Connection, site: str) -> tuple[int, int]:
    """Numbers of records that a site ever had and has now, within a question to the index."""
    ever, now = db.execute(_COUNTS, {"site": site}).fetchone()
    return int(ever), int(now)


def tombstone(
    store: Store, head: Commit, site: str, ever: int, now: int
) -> commit_log.Entry | None:
    """The entry after ``head`` that erases a site; None if it has no record now.

    Raises:
        ZooError: If it never had one.
    """
    if not ever:
        raise ZooError(
            "no such site",
            where=store.describe("log"),
            got=repr(site),
            remedy="Check the name; the zoo never had a record of it.",
        )
    if not now:
        return None
    return commit_log.Entry(number=head.number + 1, previous=head.sha256, kind="forget", site=site)


def is_unfinished(store: Store, index: Index, manifest: Manifest) -> bool:
    """Whether there is a tombstone of which files, or rows among those of other sites, are left.

    Raises:
        ZooError: If the log is damaged.
    """
    if index.ask(lambda db: bool(remaining_rows(db, manifest))):
        return True
    return any(store.exists(name) for name in _last(_void(index)))


def remaining_rows(db: sqlite3.Connection, manifest: Manifest) -> tuple[Record, ...]:
    """Records to be moved from files with erased rows, within a question to the index.

    Returns:
        Records in the order of the log, as many as one merge takes; empty if there are none.
    """
    limit = {"limit": max(1, rows_per_merge(manifest))}
    return tuple(record_of(row) for row in db.execute(_REMAINING, limit).fetchall())


def sweep(store: Store, index: Index) -> Compaction:
    """Deletes every row that the log doesn't name; the caller holds the lock alone.

    A file with a row that it names stays whole, see `remaining_rows`. Leftovers of dead writers are
    deleted too, as they may have rows of a forgotten site.

    Raises:
        ZooError: If the log is damaged (then nothing is deleted) or a file can't be deleted.
    """
    void = _void(index)
    left = store.abandoned()
    # From the log, not from the index: deletion is final.
    keep = {shards.name(sha256) for sha256 in commit_log.shards_in_use(store)}
    present = set(store.names("shards"))
    last = frozenset(_last(void))
    strays = [name for name in left if name not in keep and name not in void]
    gone = [name for name in void if name not in keep and name in present]
    # Last are the files by which `resume` recognises unfinished work.
    first = [*strays, *(name for name in gone if name not in last)]
    size_bytes = store.delete(*first)
    size_bytes += store.delete(*(name for name in gone if name in last))
    return Compaction(files=len(strays) + len(gone), size_bytes=size_bytes)


def _last(void: dict[str, int]) -> list[str]:
    """The last file of each tombstone in the order of deletion: while it exists, others may too.

    Which one that is must not depend on the files that have been deleted already.
    """
    return list({tombstone: name for name, tombstone in void.items()}.values())


def _void(index: Index) -> dict[str, int]:
    """Numbers of tombstones by the shards of which they erased rows, in the order of deletion.

    Shards that a merge has emptied come first: they may have been deleted long ago.
    """
    rows = index.ask(lambda db: db.execute(_VOID).fetchall())
    return {shards.name(sha256): tombstone for sha256, tombstone, _ in rows}
