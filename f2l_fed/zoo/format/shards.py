"""Shards: two float32 matrices in a safetensors file whose header follows from their shapes."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from f2l_fed.errors import ZooError
from f2l_fed.zoo.format.sealed_json import FORMAT, canonical
from f2l_fed.zoo.records import Floats
from f2l_fed.zoo.storage.store import Bytes, Store

_FLOAT = np.dtype("<f4")
_LENGTH_BYTES = 8
HEAD_BYTES = 512
"""More than any header takes, whatever its numbers are."""

_ROWS = re.compile(rb'"w":\{"data_offsets":\[0,\d{1,20}\],"dtype":"F32","shape":\[(\d{1,12}),')
MAX_BYTES = 1 << 30
"""Largest size of a shard: one worker can read it whole, and a disk can stream it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shard:
    """The rows of one shard.

    Args:
        w: (rows, D) float32, weights.
        c: (rows, C) float32, contexts.
    """

    w: Floats
    c: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardExtent:
    """The extent of a shard's matrices in its file.

    Args:
        rows: Number of rows.
        start: Position of the first weight, in bytes.
        split: Position of the first context number, behind the last weight, in bytes.
    """

    rows: int
    start: int
    split: int


def name(sha256: str) -> str:
    """The file of a shard."""
    return f"shards/{sha256}.safetensors"


def rows_per_shard(weight_dim: int, context_dim: int) -> int:
    """The number of rows that fit into `MAX_BYTES`, at least one.

    >>> rows_per_shard(1_000_000, 24_000_000)
    10
    """
    return max(1, MAX_BYTES // (_FLOAT.itemsize * (weight_dim + context_dim)))


def header(rows: int, weight_dim: int, context_dim: int) -> bytes:
    """The first bytes of every shard of this shape, length field included.

    >>> header(1, 2, 3)[8:64]
    b'{"__metadata__":{"f2l_zoo":"1"},"c":{"data_offsets":[8,2'
    """
    split = rows * weight_dim * _FLOAT.itemsize
    end = split + rows * context_dim * _FLOAT.itemsize
    text = canonical(
        {
            "__metadata__": {"f2l_zoo": str(FORMAT)},
            "w": {"dtype": "F32", "shape": [rows, weight_dim], "data_offsets": [0, split]},
            "c": {"dtype": "F32", "shape": [rows, context_dim], "data_offsets": [split, end]},
        }
    )
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def encode(w: Sequence[Floats], c: Sequence[Floats]) -> bytearray:
    """The bytes of a shard.

    Args:
        w: (D,) float32 for each row.
        c: (C,) float32 for each row.
    """
    start = header(len(w), len(w[0]), len(c[0]))
    split = len(start) + len(w) * len(w[0]) * _FLOAT.itemsize
    data = bytearray(split + len(c) * len(c[0]) * _FLOAT.itemsize)
    data[: len(start)] = start
    np.stack(w, out=np.frombuffer(memoryview(data)[len(start) : split], _FLOAT).reshape(len(w), -1))
    np.stack(c, out=np.frombuffer(memoryview(data)[split:], _FLOAT).reshape(len(c), -1))
    return data


def decode(data: memoryview, *, where: str, weight_dim: int, context_dim: int) -> Shard:
    """Views of the matrices, of which no number is read yet.

    Raises:
        ZooError: If the file isn't exactly a shard with D and C columns.
    """
    place = read_extent(
        data[:HEAD_BYTES],
        len(data),
        where=where,
        weight_dim=weight_dim,
        context_dim=context_dim,
    )
    w = np.frombuffer(data[place.start : place.split], _FLOAT).reshape(place.rows, weight_dim)
    c = np.frombuffer(data[place.split :], _FLOAT).reshape(place.rows, context_dim)
    return Shard(w=w, c=c)


def read_extent(
    head: memoryview, size_bytes: int, *, where: str, weight_dim: int, context_dim: int
) -> ShardExtent:
    """The extent of the matrices in a file, from its first bytes alone.

    No size in the header is trusted: it must be the one header that a shard of this zoo can have,
    which is made from the number of rows and compared.

    Args:
        head: The first `HEAD_BYTES`, or all bytes if there are fewer.
        size_bytes: Size of the whole file.

    Raises:
        ZooError: If the file isn't exactly a shard with D and C columns.
    """
    text = bytes(head)
    match = _ROWS.search(text)
    rows = int(match[1]) if match else 0
    start = header(rows, weight_dim, context_dim)
    split = len(start) + rows * weight_dim * _FLOAT.itemsize
    end = split + rows * context_dim * _FLOAT.itemsize
    if rows > 0 and text[: len(start)] == start and size_bytes == end:
        return ShardExtent(rows=rows, start=len(start), split=split)
    length = int.from_bytes(text[:_LENGTH_BYTES], "little")
    sound = rows > 0 and start.startswith(text[: len(start)])
    if size_bytes == 0:
        what = "the shard is empty"
    elif size_bytes < _LENGTH_BYTES + min(length, HEAD_BYTES) or (sound and size_bytes < end):
        what = "the shard is truncated"
    elif sound:
        what = "the shard has bytes behind its end"
    else:
        what = "the shard's header is damaged or made for another zoo"
    raise ZooError(
        what,
        where=where,
        expected=f"float32 matrices w (n, {weight_dim}) and c (n, {context_dim}), "
        f"{end if rows > 0 else 'some'} bytes",
        got=f"{size_bytes} bytes with the header {text[_LENGTH_BYTES : len(start)]!r}",
        remedy="Restore this file from a backup.",
    )


def write(store: Store, w: Sequence[Floats], c: Sequence[Floats]) -> str:
    """Writes a shard of these rows; see `put`.

    Returns:
        Its sha256.
    """
    data = encode(w, c)
    sha256 = hashlib.sha256(data).hexdigest()
    put(store, data, lambda: sha256)
    return sha256


def put(store: Store, data: Bytes, sha256: Callable[[], str]) -> None:
    """Makes a shard's numbers durable; its name becomes durable with the log entry.

    Args:
        data: Bytes from `encode`.
        sha256: Returns their sha256, which may still be computed while the disk is at work.

    Raises:
        ZooError: If it can't be written, or a damaged file has its name.
    """
    if store.put_new(lambda: name(sha256()), data, lasting=False):
        return
    file = name(sha256())
    if store.get(file) != data:
        raise ZooError(
            "the shard is damaged",
            where=store.describe(file),
            expected=f"content with the sha256 {sha256()[:12]}…",
            got="another content",
            remedy="Restore this file from a backup, then repeat.",
        )


def checksum(row: Floats) -> int:
    """CRC-32 of the little-endian bytes of a row.

    >>> checksum(np.zeros(2, np.float32))
    1696784233
    """
    return zlib.crc32(np.ascontiguousarray(row, _FLOAT).data)
