"""Erasure of a site: the files are deleted after the tombstone, even if the first attempt died.

Where a file has rows of other sites too, these move to another one first.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from functools import partial

from f2l_fed.errors import ZooError
from f2l_fed.zoo.format import commit_log, shards
from f2l_fed.zoo.format.manifest import Manifest
from f2l_fed.zoo.index import Index, record_of
from f2l_fed.zoo.maintenance.compaction import rows_per_merge
from f2l_fed.zoo.records import Commit, Compaction, Record
from f2l_fed.zoo.storage.store import Store
from f2l_fed.zoo.writer import Writer

_COUNTS = """
SELECT (SELECT count(*) FROM records WHERE site = :site),
       (SELECT count(*) FROM live WHERE site = :site)
"""
_VOID = """
SELECT DISTINCT shard
FROM (SELECT r.shard FROM forgotten f JOIN records r ON r.site = f.site AND r.number < f.number
      UNION ALL
      SELECT m.shard FROM forgotten f JOIN records r ON r.site = f.site AND r.number < f.number
      JOIN moves m ON m.record = r.rowid) v
WHERE NOT EXISTS (SELECT 1 FROM live l WHERE l.shard = v.shard)
"""

# A row that was sent again, to the bit, lies where the erased one did.
_MIXED = """
WITH erased AS (SELECT r.rowid AS id, r.shard, r.row
                FROM forgotten f JOIN records r ON r.site = f.site AND r.number < f.number),
     void AS (SELECT shard, row FROM erased
              UNION SELECT m.shard, m.row FROM erased e JOIN moves m ON m.record = e.id),
     mixed AS (SELECT DISTINCT shard FROM void v
               WHERE NOT EXISTS (SELECT 1 FROM live l WHERE l.shard = v.shard AND l.row = v.row))
"""
_REMAINING = f"""
{_MIXED}
SELECT r.* FROM mixed m JOIN live l ON l.shard = m.shard JOIN records r ON r.rowid = l.id
WHERE :shard IN ('', m.shard) ORDER BY r.rowid LIMIT :limit
"""
_REMAINING_SHARDS = f"""
{_MIXED}
SELECT DISTINCT m.shard FROM mixed m JOIN live l ON l.shard = m.shard ORDER BY m.shard
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
    void = _void(index)
    return bool(void) and not void.isdisjoint(store.names("shards"))


def remaining_rows(
    db: sqlite3.Connection, manifest: Manifest, *, shard: str = ""
) -> tuple[Record, ...]:
    """Records to be moved from files with erased rows, within a question to the index.

    Args:
        db: The index.
        manifest: The manifest.
        shard: The only one to be looked at; "" for all.

    Returns:
        Records in the order of the log, as many as one merge takes; empty if there are none.
    """
    limits = {"shard": shard, "limit": max(1, rows_per_merge(manifest))}
    return tuple(record_of(row) for row in db.execute(_REMAINING, limits).fetchall())


def finish(writer: Writer) -> Compaction:
    """Erases what is left of all forgotten sites; the caller holds the lock alone.

    A file of which a row can't be moved stays; everything else is deleted before the error is
    raised.

    Raises:
        ZooError: If a row of another site can't be moved, or as with `sweep`.
    """
    try:
        _move_remaining(writer)
    finally:
        removed = sweep(writer.store, writer.index)
    return removed


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
    strays = [name for name in left if name not in keep and name not in void]
    gone = sorted((void & present) - keep)
    # Last are the files by which `is_unfinished` recognises unfinished work.
    size_bytes = store.delete(*strays) + store.delete(*gone)
    return Compaction(files=len(strays) + len(gone), size_bytes=size_bytes)


def _move_remaining(writer: Writer) -> None:
    try:
        writer.move(remaining_rows, check=False)
    except ZooError:
        # One file that is missing holds up no other.
        for (shard,) in writer.index.ask(lambda db: db.execute(_REMAINING_SHARDS).fetchall()):
            with suppress(ZooError):
                writer.move(partial(remaining_rows, shard=shard), check=False)
        if writer.index.ask(lambda db: bool(remaining_rows(db, writer.manifest))):
            raise


def _void(index: Index) -> set[str]:
    """The names of the shards that have erased rows, or had them before a merge, and no others."""
    rows = index.ask(lambda db: db.execute(_VOID).fetchall())
    return {shards.name(sha256) for (sha256,) in rows}
