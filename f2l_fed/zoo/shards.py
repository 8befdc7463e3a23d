"""Shards: two float32 matrices in a safetensors file whose header follows from their shapes."""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass

import numpy as np

from f2l_fed.errors import ZooError
from f2l_fed.zoo.records import Floats
from f2l_fed.zoo.sealed import FORMAT, canonical
from f2l_fed.zoo.store import Store

_FLOAT = np.dtype("<f4")
_LENGTH_BYTES = 8
# Small enough to be read whole by one worker, large enough for a disk to stream.
MAX_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shard:
    """The rows of one shard.

    Args:
        w: (rows, D) float32, weights.
        c: (rows, C) float32, contexts.
    """

    w: Floats
    c: Floats


def name(sha256: str) -> str:
    """The file of a shard."""
    return f"shards/{sha256}.safetensors"


def rows_per_shard(weight_dim: int, context_dim: int) -> int:
    """How many rows fit into `MAX_BYTES`, at least one.

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


def encode(w: Floats, c: Floats) -> bytes:
    """The bytes of a shard.

    Args:
        w: (rows, D) float32.
        c: (rows, C) float32.
    """
    start = header(len(w), w.shape[1], c.shape[1])
    return b"".join((start, w.astype(_FLOAT).tobytes(), c.astype(_FLOAT).tobytes()))


def decode(data: memoryview, *, where: str, weight_dim: int, context_dim: int) -> Shard:
    """Views of the matrices; no number is read yet.

    Raises:
        ZooError: If the file isn't exactly a shard with D and C columns.
    """
    found = _header_text(data)
    try:
        rows = int(json.loads(found)["w"]["shape"][0])
    except (ValueError, KeyError, TypeError, IndexError):
        rows = 0
    start = header(rows, weight_dim, context_dim)
    split = len(start) + rows * weight_dim * _FLOAT.itemsize
    end = split + rows * context_dim * _FLOAT.itemsize
    if rows < 1 or bytes(data[: len(start)]) != start or len(data) != end:
        raise ZooError(
            "the shard is damaged or made for another zoo",
            where=where,
            expected=f"float32 matrices w (n, {weight_dim}) and c (n, {context_dim}), "
            f"{end if rows > 0 else 'some'} bytes",
            got=f"{len(data)} bytes with the header {found[:300]!r}",
            remedy="Restore this file from a backup.",
        )
    w = np.frombuffer(data[len(start) : split], _FLOAT).reshape(rows, weight_dim)
    c = np.frombuffer(data[split:end], _FLOAT).reshape(rows, context_dim)
    return Shard(w=w, c=c)


def write(store: Store, w: Floats, c: Floats) -> str:
    """Makes a shard durable.

    Returns:
        Its sha256.

    Raises:
        ZooError: If it can't be written, or a damaged file has its name.
    """
    data = encode(w, c)
    sha256 = hashlib.sha256(data).hexdigest()
    if not store.put_new(name(sha256), data) and store.get(name(sha256)) != data:
        raise ZooError(
            "the shard is damaged",
            where=store.describe(name(sha256)),
            expected=f"content with the sha256 {sha256[:12]}…",
            got="another content",
            remedy="Restore this file from a backup, then repeat.",
        )
    return sha256


def checksum(row: Floats) -> int:
    """CRC-32 of the little-endian bytes of a row.

    >>> checksum(np.zeros(2, np.float32))
    1696784233
    """
    return zlib.crc32(np.ascontiguousarray(row, _FLOAT).data)


def _header_text(data: memoryview) -> bytes:
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    return bytes(data[_LENGTH_BYTES : _LENGTH_BYTES + min(length, len(data))])
