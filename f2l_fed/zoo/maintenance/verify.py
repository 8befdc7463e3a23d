"""Verification of a zoo: every byte that the log has a checksum of, read and compared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Set
from dataclasses import replace
from itertools import islice

import numpy as np

from f2l_fed.errors import ZooError
from f2l_fed.zoo.format import commit_log, shards
from f2l_fed.zoo.format.manifest import Manifest
from f2l_fed.zoo.records import Fault, Record
from f2l_fed.zoo.storage.store import Store

MAX_GAPS = 1000
"""Most missing entries reported: a stray file with a huge number would make it a long list."""


def verify(store: Store, manifest: Manifest) -> tuple[Fault, ...]:
    """Checks everything, and goes on after each fault.

    Leftovers of dead writers are no faults: shards under their right names that no entry names, or
    of which all rows have been merged.

    Returns:
        All faults, those of the log first; empty if there are none.
    """
    faults: list[Fault] = []
    entries = _readable_entries(store, faults)
    faults += _repeated_keys(entries)
    live, void, mixed = _places(entries, faults)
    present = set(store.names("shards"))
    strays = _strays(store, present - {shards.name(sha256) for sha256 in live.keys() | void})
    for sha256, uses in sorted(live.items()):
        if shards.name(sha256) in present:
            faults += _shard_faults(store, manifest, sha256, uses, live.keys())
        else:
            faults.append(_absent(sha256, strays))
    faulty = {fault.file for fault in faults}
    faults += _stray_faults(strays, {shards.name(sha256) for sha256 in live}, faulty)
    faults += [
        Fault(file=shards.name(sha256), what="it still has erased rows; compact the zoo")
        for sha256 in sorted((void - live.keys()) | mixed)
        if shards.name(sha256) in present
    ]
    return tuple(faults)


def _readable_entries(store: Store, faults: list[Fault]) -> list[commit_log.Entry]:
    entries: list[commit_log.Entry] = []
    numbers = commit_log.numbers(store)
    absent = set(islice(commit_log.gaps(store), MAX_GAPS))
    # None after an unreadable entry: its successor can't be compared with it.
    previous: str | None = "0" * 64
    for number in sorted(absent.union(numbers)):
        if number in absent:
            faults.append(Fault(file=commit_log.name(number), what="the log entry is missing"))
            previous = None
            continue
        try:
            commit, entry = commit_log.read(store, number)
            if previous not in (None, entry.previous):
                faults.append(Fault(file=commit_log.name(number), what="the log's chain is broken"))
            entries.append(entry)
            previous = commit.sha256
        except ZooError as error:
            what = _moved(store, number, absent) or error.what
            faults.append(Fault(file=commit_log.name(number), what=what))
            previous = None
    foreign = set(store.names("log")) - {commit_log.name(number) for number in numbers}
    faults += [Fault(file=f, what="not the name of a log entry") for f in sorted(foreign)]
    return entries


def _moved(store: Store, number: int, absent: Set[int]) -> str:
    """The entry that has another one's name, as a clause; "" if that isn't the fault."""
    file = commit_log.name(number)
    (data,) = store.find_all([file])
    try:
        home = commit_log.decode(data or b"", where=file).number
    except ZooError:
        return ""
    if home in absent:
        return f"{commit_log.name(home)} was renamed to this"
    if home != number and store.find_all([commit_log.name(home)]) == [data]:
        return f"a copy of {commit_log.name(home)} is in this place"
    return ""


def _places(
    entries: list[commit_log.Entry], faults: list[Fault]
) -> tuple[dict[str, list[commit_log.ShardRows]], set[str], set[str]]:
    """The shards with live rows, with their entries, those with erased rows, and with both."""
    named: dict[str, list[commit_log.ShardRows]] = {}
    known: dict[str, dict[str, Record]] = {}
    places: dict[str, set[tuple[str, int]]] = {}
    erased: set[tuple[str, int]] = set()
    for entry in entries:
        if entry.kind == "forget":
            known.pop(entry.site, None)
            erased |= places.pop(entry.site, set())
        for shard in (*entry.shards, *_merged(entry, known, faults)):
            named.setdefault(shard.sha256, []).append(shard)
            for record in shard.records:
                known.setdefault(record.site, {})[record.key] = record
                places.setdefault(record.site, set()).add((record.shard, record.row))
    current = {id(record): record for mine in known.values() for record in mine.values()}
    live = {
        sha256: kept
        for sha256, uses in named.items()
        if (kept := [use for use in uses if any(id(r) in current for r in use.records)])
    }
    # A row that was sent again, to the bit, lies where the erased one did.
    void = erased - {(record.shard, record.row) for record in current.values()}
    found = {sha256 for sha256, _ in erased}
    return live, found, {sha256 for sha256, _ in void} & live.keys()


def _merged(
    entry: commit_log.Entry, known: dict[str, dict[str, Record]], faults: list[Fault]
) -> Iterator[commit_log.ShardRows]:
    for move in entry.moves:
        found = [known.get(site, {}).get(key) for site, key in move.rows]
        faults += [
            Fault(file=commit_log.name(entry.number), what=f"moves {key}, which is missing")
            for (_, key), record in zip(move.rows, found, strict=True)
            if record is None
        ]
        records = tuple(
            replace(record, shard=move.sha256, row=row)
            for row, record in enumerate(found)
            if record is not None
        )
        if len(records) == len(found):
            yield commit_log.ShardRows(sha256=move.sha256, records=records)


def _repeated_keys(entries: list[commit_log.Entry]) -> Iterator[Fault]:
    seen: set[str] = set()
    for entry in entries:
        for record in entry.records:
            if record.key in seen:
                yield Fault(
                    file=commit_log.name(entry.number), what=f"key {record.key} came before"
                )
            seen.add(record.key)


def _shard_faults(
    store: Store,
    manifest: Manifest,
    sha256: str,
    uses: list[commit_log.ShardRows],
    known: Set[str],
) -> list[Fault]:
    file = shards.name(sha256)
    data = store.get(file)
    found = hashlib.sha256(data).hexdigest()
    if found != sha256 and found in known:
        return [Fault(file=file, what=f"a copy of {shards.name(found)} is in this place")]
    try:
        shard = shards.decode(
            data,
            where=file,
            weight_dim=manifest.weight_dim,
            context_dim=manifest.context_dim,
        )
    except ZooError as error:
        return [Fault(file=file, what=error.what)]
    faults = [
        Fault(file=file, what=f"has {len(shard.w)} rows, the log says {len(use.records)}")
        for use in uses
        if len(use.records) != len(shard.w)
    ]
    for record in uses[0].records[: len(shard.w)]:
        faults += _row_faults(file, shard, record)
    if not faults and found != sha256:
        faults.append(Fault(file=file, what="the content doesn't match the name"))
    return faults


def _row_faults(file: str, shard: shards.Shard, record: Record) -> Iterator[Fault]:
    numbers = (("weights", shard.w, record.crc32[0]), ("context", shard.c, record.crc32[1]))
    for what, matrix, expected in numbers:
        row = matrix[record.row]
        if shards.checksum(row) != expected:
            yield Fault(file=file, row=record.row, what=f"the {what} of {record.key} are damaged")
        elif not np.isfinite(row).all():
            yield Fault(file=file, row=record.row, what=f"the {what} of {record.key} aren't finite")


def _strays(store: Store, files: set[str]) -> dict[str, str]:
    """sha256 of the content of files in shards/ that the log doesn't name, by file."""
    return {file: hashlib.sha256(store.get(file)).hexdigest() for file in sorted(files)}


def _absent(sha256: str, strays: dict[str, str]) -> Fault:
    what = "the file is missing"
    elsewhere = [file for file, content in strays.items() if content == sha256]
    if elsewhere:
        what = f"the file was renamed to {elsewhere[0]}; name it as before"
    return Fault(file=shards.name(sha256), what=what)


def _stray_faults(strays: dict[str, str], live: Set[str], faulty: Set[str]) -> Iterator[Fault]:
    for file, sha256 in strays.items():
        home = shards.name(sha256)
        if home in live and home not in faulty:
            yield Fault(file=file, what=f"a copy of {home}; delete it")
        elif home not in live and file != home:
            yield Fault(file=file, what="no log entry names this file, and it isn't a whole shard")
