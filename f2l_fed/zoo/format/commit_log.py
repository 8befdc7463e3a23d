"""The append-only commit log, a hash chain of sealed entries."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import Any

from f2l_fed.errors import ZooError
from f2l_fed.zoo.format.sealed_json import FORMAT, seal, unseal
from f2l_fed.zoo.records import GENESIS, Commit, Kind, Record
from f2l_fed.zoo.storage.store import Bytes, Store

_MAX_BATCH = 64
_MERGE_FORMAT = 2
_SHARED_FORMAT = 3
_FORMATS = frozenset({FORMAT, _MERGE_FORMAT, _SHARED_FORMAT})
_NAME = re.compile(r"log/(\d{20})\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRows:
    """A shard in a log entry: its file and its records in row order."""

    sha256: str
    records: tuple[Record, ...]

    @property
    def sites(self) -> frozenset[str]:
        """The sites of its rows."""
        return frozenset(record.site for record in self.records)


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedRows:
    """A shard of a merge: its file, and site and key of each of its records in row order."""

    sha256: str
    rows: tuple[tuple[str, str], ...]

    @property
    def sites(self) -> frozenset[str]:
        """The sites of its rows."""
        return frozenset(site for site, _ in self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One step of the log.

    Args:
        number: From 1.
        previous: sha256 of the bytes of the entry before, 64 zeros for the first.
        kind: "append", "forget" or "merge".
        shards: The shards of an append.
        site: The site that a forget erases; "" for the other kinds.
        moves: The shards to which a merge moved records of earlier entries.
    """

    number: int
    previous: str
    kind: Kind
    shards: tuple[ShardRows, ...] = ()
    site: str = ""
    moves: tuple[MovedRows, ...] = ()

    @property
    def records(self) -> tuple[Record, ...]:
        """All records of all shards, in order."""
        return tuple(record for shard in self.shards for record in shard.records)

    @property
    def shard_names(self) -> tuple[str, ...]:
        """sha256 of all shards of an append or a merge."""
        appended = (shard.sha256 for shard in self.shards)
        return (*appended, *(move.sha256 for move in self.moves))


def name(number: int) -> str:
    """The file of an entry.

    >>> name(7)
    'log/00000000000000000007.json'
    """
    return f"log/{number:020d}.json"


def encode(entry: Entry) -> bytes:
    """The bytes of an entry, the same ones for the same entry on any machine."""
    body: dict[str, Any] = {
        "commit": entry.number,
        "previous": entry.previous,
        "kind": entry.kind,
        "shards": [
            *(_appended(shard) for shard in entry.shards),
            *(_moved(move) for move in entry.moves),
        ],
    }
    if entry.kind == "forget":
        body["site"] = entry.site
    of_shards = (shard.sites for shard in entry.shards)
    if any(len(sites) > 1 for sites in (*of_shards, *(move.sites for move in entry.moves))):
        return seal(body, format=_SHARED_FORMAT)
    return seal(body, format=_MERGE_FORMAT if entry.kind == "merge" else FORMAT)


def _appended(shard: ShardRows) -> dict[str, Any]:
    rows = [record.to_row() for record in shard.records]
    if len(shard.sites) == 1:
        return {"sha256": shard.sha256, "site": shard.records[0].site, "rows": rows}
    sites = (record.site for record in shard.records)
    shared = [{**row, "site": site} for row, site in zip(rows, sites, strict=True)]
    return {"sha256": shard.sha256, "rows": shared}


def _moved(move: MovedRows) -> dict[str, Any]:
    if len(move.sites) == 1:
        (site,) = move.sites
        return {"sha256": move.sha256, "site": site, "rows": [key for _, key in move.rows]}
    return {"sha256": move.sha256, "rows": [{"site": s, "key": key} for s, key in move.rows]}


def decode(data: Bytes, *, where: str) -> Entry:
    """Reads an entry that `encode` wrote.

    Raises:
        ZooError: If it is damaged, of an unknown format, or sealed but not a log entry.
    """
    body = unseal(data, where=where, formats=_FORMATS)
    try:
        number, previous, kind = body["commit"], body["previous"], body["kind"]
        if kind == "merge":
            moves = tuple(_moved_rows(shard) for shard in body["shards"])
            return Entry(number=number, previous=previous, kind=kind, moves=moves)
        return Entry(
            number=number,
            previous=previous,
            kind=kind,
            shards=tuple(_shard_rows(shard, number) for shard in body["shards"]),
            site=body["site"] if kind == "forget" else "",
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ZooError("not a log entry", where=where, got=repr(error)) from error


def read(store: Store, number: int) -> tuple[Commit, Entry]:
    """Reads one entry without its neighbours.

    Raises:
        ZooError: If it is missing or damaged, or has another entry's name.
    """
    (data,) = store.find_all([name(number)])
    if data is None:
        raise missing_entry(store, number)
    return _parse(store, number, data)


def _parse(store: Store, number: int, data: Bytes) -> tuple[Commit, Entry]:
    file = name(number)
    entry = decode(data, where=store.describe(file))
    if entry.number != number:
        raise ZooError(
            "the log entry has another entry's name",
            where=store.describe(file),
            expected=f"commit {number}",
            got=f"commit {entry.number}",
            remedy="Restore the log folder from a backup.",
        )
    commit = Commit(
        number=number,
        kind=entry.kind,
        sha256=hashlib.sha256(data).hexdigest(),
        rows=len(entry.records),
    )
    return commit, entry


def entries(store: Store, after: Commit = GENESIS) -> Iterator[tuple[Commit, Entry]]:
    """All entries that follow a commit, each checked against the one before.

    Raises:
        ZooError: At the first entry that is damaged or doesn't continue the chain.
    """
    at_once = 1
    while True:
        numbers = range(after.number + 1, after.number + 1 + at_once)
        for number, data in zip(numbers, store.find_all([name(n) for n in numbers]), strict=True):
            if data is None:
                return
            commit, entry = _parse(store, number, data)
            if entry.previous != after.sha256:
                raise broken_chain(store, entry, after.sha256)
            yield commit, entry
            after = commit
        # Most readers are one commit behind; those far behind should not wait for each entry.
        at_once = min(2 * at_once, _MAX_BATCH)


def broken_chain(store: Store, entry: Entry, previous: str) -> ZooError:
    """The error about an entry that does not continue the one before it."""
    return ZooError(
        "the log's chain is broken",
        where=store.describe(name(entry.number)),
        expected=f"previous {previous[:12]}…",
        got=f"{entry.previous[:12]}…",
        remedy="One of these two entries was exchanged; restore the log folder from a backup.",
    )


def numbers(store: Store) -> list[int]:
    """The numbers of all entries, sorted."""
    matches = (_NAME.fullmatch(file) for file in store.names("log"))
    return [int(match[1]) for match in matches if match]


def gaps(store: Store) -> Iterator[int]:
    """The numbers of entries that are missing below the last one, in order."""
    for before, after in pairwise((0, *numbers(store))):
        # A listing of a folder that is being written to may lack the newest entry but one.
        yield from (n for n in range(before + 1, after) if not store.exists(name(n)))


def missing_entry(store: Store, number: int) -> ZooError:
    """The error about a missing entry."""
    return ZooError(
        "a log entry is missing",
        where=store.describe(name(number)),
        expected=f"commit {number}",
        remedy="Restore it from a backup: the records it names were accepted.",
    )


def publish(store: Store, entry: Entry) -> Commit | None:
    """Makes an entry durable, or returns None if another writer took its number.

    An entry of the same bytes is this one: the reply to a first attempt may have been lost.
    """
    file, data = name(entry.number), encode(entry)
    # An entry must not outlast the shards that it names.
    if not store.put_new(file, data, after="shards") and store.find_all([file]) != [data]:
        return None
    return Commit(
        number=entry.number,
        kind=entry.kind,
        sha256=hashlib.sha256(data).hexdigest(),
        rows=len(entry.records),
    )


def shards_in_use(store: Store, until: float = inf) -> frozenset[str]:
    """sha256 of all shards with a row that no tombstone covers and no merge moved, from the log.

    Args:
        store: The store.
        until: The last commit that counts.

    Raises:
        ZooError: If the log is damaged anywhere.
    """
    for number in gaps(store):
        raise missing_entry(store, number)
    # By site and key; a key that comes twice, which is damage, keeps both of its shards.
    places: dict[str, dict[str, tuple[str, ...]]] = {}
    for _, entry in entries(store):
        if entry.number > until:
            break
        places.pop(entry.site, None)
        for record in entry.records:
            mine = places.setdefault(record.site, {})
            mine[record.key] = (*mine.get(record.key, ()), record.shard)
        for move in entry.moves:
            for site, key in move.rows:
                mine = places.get(site, {})
                if key not in mine:
                    raise unfounded_move(entry.number, key)
                mine[key] = (move.sha256,)
    return frozenset(name for mine in places.values() for names in mine.values() for name in names)


def unfounded_move(number: int, key: str) -> ZooError:
    """The error about a merge of a record that the log doesn't have."""
    return ZooError(
        "the log entry moves a record that the log doesn't have",
        where=name(number),
        got=key,
        remedy="Restore the log folder from a backup.",
    )


def _shard_rows(value: dict[str, Any], commit: int) -> ShardRows:
    sha256 = value["sha256"]
    return ShardRows(
        sha256=sha256,
        records=tuple(
            Record.from_row(
                row,
                commit=commit,
                site=value["site"] if "site" in value else row["site"],
                shard=sha256,
                row=index,
            )
            for index, row in enumerate(value["rows"])
        ),
    )


def _moved_rows(value: dict[str, Any]) -> MovedRows:
    if "site" in value:
        rows = tuple((value["site"], key) for key in value["rows"])
    else:
        rows = tuple((row["site"], row["key"]) for row in value["rows"])
    return MovedRows(sha256=value["sha256"], rows=rows)
