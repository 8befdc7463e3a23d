"""Verification: every byte that the log vouches for, read and compared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import islice

import numpy as np

from f2l_fed.errors import ZooError
from f2l_fed.zoo import log, shards
from f2l_fed.zoo.manifest import Manifest
from f2l_fed.zoo.records import Fault, Record
from f2l_fed.zoo.store import Store

# A stray file with a huge number must not make a list of everything below it.
MAX_GAPS = 1000


def verify(store: Store, manifest: Manifest) -> tuple[Fault, ...]:
    """Looks at everything and goes on after each fault.

    Returns:
        All faults, those of the log first; empty if there are none.
    """
    faults: list[Fault] = []
    entries = _readable_entries(store, faults)
    faults += _repeated_keys(entries)
    erased = {entry.site: entry.number for entry in entries if entry.kind == "forget"}
    live: dict[str, list[log.ShardRows]] = {}
    void: set[str] = set()
    for entry in entries:
        for shard in entry.shards:
            if erased.get(shard.site, 0) > entry.number:
                void.add(shard.sha256)
            else:
                live.setdefault(shard.sha256, []).append(shard)
    for sha256, uses in sorted(live.items()):
        faults += _shard_faults(store, manifest, sha256, uses)
    faults += [
        Fault(file=shards.name(sha256), what="erased rows are still there; open the zoo to finish")
        for sha256 in sorted(void - live.keys())
        if store.exists(shards.name(sha256))
    ]
    return tuple(faults)


def _readable_entries(store: Store, faults: list[Fault]) -> list[log.Entry]:
    entries: list[log.Entry] = []
    absent = set(islice(log.gaps(store), MAX_GAPS))
    # None after an entry that can't be read: its successor can't be held against it.
    previous: str | None = "0" * 64
    for number in sorted(absent.union(log.numbers(store))):
        if number in absent:
            faults.append(Fault(file=log.name(number), what="the log entry is missing"))
            previous = None
            continue
        try:
            commit, entry = log.read(store, number)
            if previous not in (None, entry.previous):
                faults.append(Fault(file=log.name(number), what="the log's chain is broken"))
            entries.append(entry)
            previous = commit.sha256
        except ZooError as error:
            faults.append(Fault(file=log.name(number), what=error.what))
            previous = None
    return entries


def _repeated_keys(entries: list[log.Entry]) -> Iterator[Fault]:
    seen: set[str] = set()
    for entry in entries:
        for record in entry.records:
            if record.key in seen:
                yield Fault(file=log.name(entry.number), what=f"key {record.key} came before")
            seen.add(record.key)


def _shard_faults(
    store: Store, manifest: Manifest, sha256: str, uses: list[log.ShardRows]
) -> list[Fault]:
    file = shards.name(sha256)
    try:
        data = store.get(file)
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
    if not faults and hashlib.sha256(data).hexdigest() != sha256:
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
