"""The index: the log folded into SQLite for quick questions; a view, never the truth."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any, TypeVar

from f2l_fed.errors import ZooError
from f2l_fed.zoo.format import commit_log
from f2l_fed.zoo.format.sealed_json import canonical
from f2l_fed.zoo.records import GENESIS, Commit, Record
from f2l_fed.zoo.storage.local import locked_in_zoo
from f2l_fed.zoo.storage.store import Store, zoo_errors

T = TypeVar("T")

_VERSION = 3
# Every column that records are chosen by is in an index too, and SQLite's integrity check compares
# the two: a flipped bit in either is found when a process opens the file. Programs of version 3
# without these indexes read and keep them.
_SCHEMA = f"""
CREATE TABLE commits (number INTEGER PRIMARY KEY, kind TEXT, sha256 TEXT, rows INTEGER);
CREATE TABLE forgotten (site TEXT, number INTEGER);
CREATE TABLE moves (record INTEGER, number INTEGER, shard TEXT, row INTEGER);
CREATE TABLE records (number INTEGER, shard TEXT, row INTEGER, key TEXT, site TEXT, round INTEGER,
                      status TEXT, parent TEXT, w_crc32 INTEGER, c_crc32 INTEGER, body TEXT,
                      crc32 INTEGER);
CREATE INDEX records_by_key ON records (key);
CREATE INDEX records_by_query ON records (site, round, status, parent, number);
CREATE INDEX records_by_shard ON records (shard, row, w_crc32, c_crc32);
CREATE INDEX moves_by_all ON moves (record, number, shard, row);
CREATE INDEX forgotten_by_all ON forgotten (site, number);
CREATE VIEW live AS SELECT rowid AS id, * FROM records r WHERE NOT EXISTS
    (SELECT 1 FROM forgotten f WHERE f.site = r.site AND f.number > r.number);
PRAGMA user_version = {_VERSION};
"""
# Errors of a sound file: no space left, or no right to write.
_NO_DAMAGE = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN})
_MAX_UNINDEXED_ROWS = 5_000
_STORED_TWICE = "SELECT 1 FROM sqlite_master WHERE name = 'records_by_query'"
_KNOWN = "SELECT key FROM records WHERE key IN (SELECT value FROM json_each(?))"
_TABLES = ("commits", "forgotten", "moves", "records")
_LIVE = "SELECT * FROM live WHERE key = ? AND site = ?"


class Index:
    """The index of a zoo, which is brought up to date before every question.

    A file that is missing, damaged or of another log is rebuilt; where no file can be written, the
    index is in memory.

    Args:
        store: The store of the zoo.
        path: The file of the index.
    """

    def __init__(self, store: Store, path: Path) -> None:
        self._store = store
        self._path = path
        self._mutex = threading.Lock()
        self._inspected = False
        self._memory: sqlite3.Connection | None = None
        self._published: list[tuple[Commit, commit_log.Entry]] = []

    def ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Runs a read-only question on an index of the whole log.

        Raises:
            ZooError: If the log is damaged, or lacks an entry that the index has.
        """
        with self._mutex:
            if not self._inspected:
                for number in commit_log.gaps(self._store):
                    raise commit_log.missing_entry(self._store, number)
            answer = self._ask_memory(question) if self._memory else self._ask_file(question)
            self._inspected = True
            return answer

    def head(self) -> Commit:
        """The last commit."""
        return self.ask(head)

    def learn(self, commit: Commit, entry: commit_log.Entry) -> None:
        """Notes an entry that this process has made durable, for the next question."""
        with self._mutex:
            self._published.append((commit, entry))

    def known(self, keys: Sequence[str]) -> tuple[Commit, set[str]]:
        """The last commit, and those of some keys that the log has.

        A writer asks this once a commit. Its own entries since the last question are indexed by
        the next one, so that a commit doesn't pay for the index.
        """
        listed = json.dumps(list(keys))

        def question(db: sqlite3.Connection) -> tuple[Commit, set[str]]:
            return head(db), {key for (key,) in db.execute(_KNOWN, (listed,))}

        with self._mutex, suppress(ZooError, sqlite3.DatabaseError):
            if self._is_all_published():
                first, last = self._published[0], self._published[-1][0]
                with self._alone(), closing(sqlite3.connect(self._path)) as db:
                    before, found = question(db)
                if (before.number + 1, before.sha256) == (first[0].number, first[1].previous):
                    mine = {r.key for _, entry in self._published for r in entry.records}
                    return last, found | mine.intersection(keys)
        return self.ask(question)

    def discard(self) -> None:
        """Deletes the file; the next question rebuilds it."""
        with self._mutex, self._alone(), zoo_errors(self._path):
            # The log may have changed since this process noted its own entries.
            self._published.clear()
            self._memory = None
            self._delete()

    def agrees_with_log(self) -> bool:
        """Whether the index equals a new one."""

        def dump(db: sqlite3.Connection) -> list[list[tuple[object, ...]]]:
            return [db.execute(f"SELECT * FROM {t} ORDER BY rowid").fetchall() for t in _TABLES]

        here, last = self.ask(lambda db: (dump(db), head(db).number))
        with closing(sqlite3.connect(":memory:")) as db:
            # There may have been a commit in between.
            _catch_up(db, self._store, [], until=last)
            return here == dump(db)

    def _is_all_published(self) -> bool:
        """Whether the log ends with this process's own entries, and they aren't too many."""
        rows = sum(commit.rows for commit, _ in self._published)
        if self._memory or not self._published or rows > _MAX_UNINDEXED_ROWS:
            return False
        last = self._published[-1][0]
        data, following = self._store.find_all(
            [commit_log.name(last.number), commit_log.name(last.number + 1)]
        )
        same = data is not None and hashlib.sha256(data).hexdigest() == last.sha256
        return same and following is None

    def _ask_file(self, question: Callable[[sqlite3.Connection], T]) -> T:
        with ExitStack() as held:
            try:
                held.enter_context(self._alone())
            except ZooError:
                # A zoo that this user can't write to can still be read.
                return self._ask_memory(question)
            try:
                return self._ask_once(question)
            except sqlite3.DatabaseError as error:
                if getattr(error, "sqlite_errorcode", None) in _NO_DAMAGE:
                    return self._ask_memory(question)
                with suppress(OSError):
                    self._delete()
            try:
                return self._ask_once(question)
            except sqlite3.DatabaseError:
                return self._ask_memory(question)

    def _ask_once(self, question: Callable[[sqlite3.Connection], T]) -> T:
        with closing(sqlite3.connect(self._path)) as db, _undecodable_is_damage():
            # A commit need not wait for the disk twice more: an index that a power cut left half
            # written is noticed here and rebuilt.
            db.execute("PRAGMA synchronous = OFF")
            if not self._inspected and not _is_sound(db):
                raise sqlite3.DatabaseError("damaged")
            _catch_up(db, self._store, self._published)
            self._published.clear()
            return question(db)

    def _ask_memory(self, question: Callable[[sqlite3.Connection], T]) -> T:
        if self._memory is None:
            self._memory = sqlite3.connect(":memory:", check_same_thread=False)
            weakref.finalize(self, self._memory.close)
        _catch_up(self._memory, self._store, self._published)
        self._published.clear()
        return question(self._memory)

    def _alone(self) -> AbstractContextManager[None]:
        # SQLite's own locks don't cover the replacement of a damaged file.
        return locked_in_zoo(self._path.with_name("index.lock"), shared=False)

    def _delete(self) -> None:
        self._path.unlink(missing_ok=True)
        self._path.with_name(f"{self._path.name}-journal").unlink(missing_ok=True)


@contextmanager
def _undecodable_is_damage() -> Iterator[None]:
    """Turns text that isn't UTF-8, also in SQLite's own messages, into a damaged index."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise sqlite3.DatabaseError("damaged") from error


def record_of(row: tuple[Any, ...]) -> Record:
    """A record from all its columns.

    Raises:
        sqlite3.DatabaseError: If they are damaged; within a question, `Index.ask` then rebuilds
            the index and asks again.
    """
    *columns, checksum = row
    if _checksum(columns) != checksum:
        raise sqlite3.DatabaseError("damaged")
    number, shard, position, _, site, *_, body = columns
    return Record.from_row(json.loads(body), commit=number, site=site, shard=shard, row=position)


def head(db: sqlite3.Connection) -> Commit:
    """The last commit, within a question."""
    row = db.execute(
        "SELECT number, kind, sha256, rows FROM commits ORDER BY number DESC LIMIT 1"
    ).fetchone()
    return Commit(number=row[0], kind=row[1], sha256=row[2], rows=row[3]) if row else GENESIS


def _catch_up(
    db: sqlite3.Connection,
    store: Store,
    published: Sequence[tuple[Commit, commit_log.Entry]],
    *,
    until: float = inf,
) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        db.executescript(_SCHEMA)
    elif version != _VERSION:
        raise sqlite3.DatabaseError("written by another version")
    last = head(db)
    with db:
        for commit, entry in published:
            if (commit.number, entry.previous) == (last.number + 1, last.sha256):
                _fold(db, commit, entry)
                last = commit
    if last.number > 0:
        data, following = store.find_all(
            [commit_log.name(last.number), commit_log.name(last.number + 1)]
        )
        if data is None:
            # The entry was durable before it was indexed, so it must have been lost since.
            found = commit_log.missing_entry(store, last.number)
            found.remedy += " If the zoo was created again, or is to do without it, reindex it."
            raise found
        if hashlib.sha256(data).hexdigest() != last.sha256:
            commit_log.read(store, last.number)
            raise sqlite3.DatabaseError("made from another log")
        if following is None:
            return
    with db:
        for commit, entry in commit_log.entries(store, after=last):
            if commit.number > until:
                break
            _fold(db, commit, entry)
        # A power cut must not take entries from the log that the index has.
        store.settle("log")


def _is_sound(db: sqlite3.Connection) -> bool:
    if db.execute("PRAGMA integrity_check(1)").fetchall() != [("ok",)]:
        return False
    if db.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
        return True
    # Earlier versions stored what records are chosen by only once, where no check sees a change.
    if not db.execute(_STORED_TWICE).fetchone():
        return False
    # Old and new pages may each be sound without belonging together.
    expected, found, first, last = db.execute(
        "SELECT (SELECT total(rows) FROM commits), (SELECT count(*) FROM records),"
        " (SELECT count(*) FROM commits), (SELECT ifnull(max(number), 0) FROM commits)"
    ).fetchone()
    return bool(expected == found and first == last)


def _fold(db: sqlite3.Connection, commit: Commit, entry: commit_log.Entry) -> None:
    db.execute(
        "INSERT INTO commits VALUES (?, ?, ?, ?)",
        (commit.number, commit.kind, commit.sha256, commit.rows),
    )
    if entry.kind == "forget":
        db.execute("INSERT INTO forgotten VALUES (?, ?)", (entry.site, entry.number))
    db.executemany(
        "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (_columns(record) for record in entry.records),
    )
    for move in entry.moves:
        for position in range(len(move.rows)):
            _move(db, entry.number, move, position)


def _move(db: sqlite3.Connection, number: int, move: commit_log.MovedRows, position: int) -> None:
    site, key = move.rows[position]
    row = db.execute(_LIVE, (key, site)).fetchone()
    if row is None:
        raise commit_log.unfounded_move(number, key)
    id, record = row[0], record_of(row[1:])
    # Readers of older snapshots and erasure need the old location.
    db.execute("INSERT INTO moves VALUES (?, ?, ?, ?)", (id, number, record.shard, record.row))
    checksum = _columns(replace(record, shard=move.sha256, row=position))[-1]
    db.execute(
        "UPDATE records SET shard = ?, row = ?, crc32 = ? WHERE rowid = ?",
        (move.sha256, position, checksum, id),
    )


def _columns(record: Record) -> tuple[object, ...]:
    body = canonical(record.to_row()).decode()
    place = (record.commit, record.shard, record.row)
    names = (record.key, record.site, record.round, record.status, record.parent)
    columns = (*place, *names, *record.crc32, body)
    return (*columns, _checksum(columns))


def _checksum(columns: Sequence[object]) -> int:
    return zlib.crc32(repr(tuple(columns)).encode())
