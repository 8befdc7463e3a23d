"""Appending records: every number and name is checked before anything is written."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from f2l_fed.errors import ZooError
from f2l_fed.zoo.format import commit_log, shards
from f2l_fed.zoo.format.manifest import Manifest
from f2l_fed.zoo.records import Commit, Floats, NewRecord, Record
from f2l_fed.zoo.storage.store import Bytes, Store


def check_records(new: Sequence[NewRecord], manifest: Manifest) -> None:
    """Checks that a zoo can hold some records.

    Raises:
        ZooError: With the first invalid record and its first fault.
    """
    for key, count in Counter(record.key for record in new).items():
        if count > 1:
            raise ZooError("the key comes twice in one append", where=f"record {key}")
    weight_dim, context_dim = manifest.weight_dim, manifest.context_dim
    for record in new:
        _check_names(record)
        _check_row(record, "weights", record.weights, weight_dim)
        _check_row(record, "context", record.context, context_dim)


def write_rows(
    store: Store, new: Sequence[NewRecord], head: Commit, rows_per_shard: int
) -> commit_log.Entry:
    """Makes the shards durable, one site each, and drafts the entry that will name them.

    Returns:
        The entry that is to follow ``head``.
    """
    by_site: dict[str, list[NewRecord]] = {}
    for record in new:
        by_site.setdefault(record.site, []).append(record)
    parts = [
        rows[start : start + rows_per_shard]
        for rows in by_site.values()
        for start in range(0, len(rows), rows_per_shard)
    ]
    number = head.number + 1
    return commit_log.Entry(
        number=number,
        previous=head.sha256,
        kind="append",
        shards=tuple(_write_shard(store, part, number) for part in parts),
    )


def _write_shard(store: Store, rows: Sequence[NewRecord], commit: int) -> commit_log.ShardRows:
    data = shards.encode([row.weights for row in rows], [row.context for row in rows])
    # Checksums are computed while the disk is at work.
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(_rows_of_shard, data, rows, commit)
        shards.put(store, data, lambda: found.result().sha256)
    return found.result()


def _rows_of_shard(data: Bytes, rows: Sequence[NewRecord], commit: int) -> commit_log.ShardRows:
    site, sha256 = rows[0].site, hashlib.sha256(data).hexdigest()
    records = tuple(
        Record(
            key=row.key,
            site=site,
            round=int(row.round),
            parent=row.parent,
            metrics={name: float(value) for name, value in row.metrics.items()},
            status=row.status,
            reason=row.reason,
            commit=commit,
            shard=sha256,
            row=index,
            crc32=(shards.checksum(row.weights), shards.checksum(row.context)),
        )
        for index, row in enumerate(rows)
    )
    return commit_log.ShardRows(sha256=sha256, site=site, records=records)


def _check_names(record: NewRecord) -> None:
    for field, value in (("key", record.key), ("site", record.site)):
        if not value or not value.isprintable():
            raise ZooError(
                f"invalid {field}",
                where=_where(record),
                expected="printable text",
                got=repr(value),
            )
    if record.round < 0:
        raise ZooError(
            "invalid round", where=_where(record), expected=">= 0", got=str(record.round)
        )
    for name, number in record.metrics.items():
        if not math.isfinite(number):
            raise ZooError(
                "a metric is not finite",
                where=f"{_where(record)}, metric {name}",
                got=str(number),
            )
    if record.status not in ("accepted", "quarantined") or bool(record.reason) != (
        record.status == "quarantined"
    ):
        raise ZooError(
            "status and reason disagree",
            where=_where(record),
            expected="accepted without a reason, or quarantined with one",
            got=f"{record.status!r} with {record.reason!r}",
        )


def _check_row(record: NewRecord, what: str, row: Floats, width: int) -> None:
    if row.shape != (width,) or row.dtype != np.float32:
        raise ZooError(
            "the dimensions or the type are not those of this zoo",
            where=f"{_where(record)}, {what}",
            expected=f"({width},) float32",
            got=f"{row.shape} {row.dtype}",
            remedy="Check that site and zoo use the same target network and the same layout.",
        )
    finite = np.isfinite(row)
    if not np.logical_and.reduce(finite):
        position = int(np.argmin(finite))
        raise ZooError(
            "a number is not finite",
            where=f"{_where(record)}, {what}[{position}]",
            got=str(row[position]),
            remedy="Reject this record; its training has diverged.",
        )


def _where(record: NewRecord) -> str:
    return f"record {record.key!r} of site {record.site!r}"
