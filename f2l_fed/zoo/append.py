"""Appending records: every number and name is checked before anything is written."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from numbers import Integral
from typing import SupportsFloat

import numpy as np

from f2l_fed.errors import ZooError
from f2l_fed.zoo.format import commit_log, shards
from f2l_fed.zoo.format.manifest import Manifest
from f2l_fed.zoo.records import Commit, Floats, NewRecord, Record
from f2l_fed.zoo.storage.store import Bytes, Store

MAX_NAME = 1024
"""Most characters of a key, a site's name, a parent and a metric's name in a new record."""

MAX_ROUND = 2**63
"""The first number that is none of a round: the index has no room for it."""

_SHOWN = 200


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
    """Makes the shards durable, as few as hold all rows, and drafts the entry that will name them.

    Rows of one site lie together, in the order in which they are given.

    Returns:
        The entry that is to follow ``head``.
    """
    by_site: dict[str, list[NewRecord]] = {}
    for record in new:
        by_site.setdefault(record.site, []).append(record)
    rows = [record for mine in by_site.values() for record in mine]
    parts = [rows[start : start + rows_per_shard] for start in range(0, len(rows), rows_per_shard)]
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
    sha256 = hashlib.sha256(data).hexdigest()
    records = tuple(
        Record(
            key=row.key,
            site=row.site,
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
    return commit_log.ShardRows(sha256=sha256, records=records)


def _check_names(record: NewRecord) -> None:
    # What the index can't take must not get into the log: no question could be asked again.
    for field, value in (("key", record.key), ("site", record.site), ("parent", record.parent)):
        if not _is_name(value) or (not value and field != "parent"):
            raise ZooError(
                f"invalid {field}",
                where=_where(record),
                expected=f"printable text of at most {MAX_NAME} characters",
                got=repr(value)[:_SHOWN],
            )
    if not isinstance(record.round, Integral) or not 0 <= record.round < MAX_ROUND:
        raise ZooError(
            "invalid round",
            where=_where(record),
            expected="a whole number, >= 0 and < 2**63",
            got=str(record.round)[:_SHOWN],
        )
    for name, number in record.metrics.items():
        if not _is_name(name):
            raise ZooError(
                "invalid name of a metric", where=_where(record), got=repr(name)[:_SHOWN]
            )
        if not _is_finite(number):
            raise ZooError(
                "a metric is not finite",
                where=f"{_where(record)}, metric {name:.{_SHOWN}}",
                got=str(number)[:_SHOWN],
            )
    if not isinstance(record.reason, str) or not _is_unicode(record.reason):
        raise ZooError("invalid reason", where=_where(record), got=repr(record.reason)[:_SHOWN])
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
    if not isinstance(row, np.ndarray):
        raise ZooError(
            "not an array of numpy",
            where=f"{_where(record)}, {what}",
            expected=f"({width},) float32",
            got=type(row).__name__,
        )
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
    return f"record {record.key!r:.{_SHOWN}} of site {record.site!r:.{_SHOWN}}"


def _is_name(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_NAME and (not value or value.isprintable())


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_finite(number: object) -> bool:
    try:
        return isinstance(number, SupportsFloat) and math.isfinite(float(number))
    except (ValueError, OverflowError, RuntimeError):
        return False
