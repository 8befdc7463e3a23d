"""The coding of large arrays: whole multiples of small steps, compressed.

Sixty-four neighbouring numbers of all rows share a step, a power of two. It is a share of the rows'
root mean square distance from a vector that both sides know, or else from their own mean, so the
error is small beside what the rows tell; what has not moved is exact. Every code stands for a
finite number. zlib of the standard library is as small as a newer compressor here: what is left has
no repetitions.

Both sizes are in front, and a reader compares them with what they should be before it unpacks.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from f2l_fed.errors import WireError

CODING = 1
"""The version of this coding, which a request names for its answer."""

SHARE = 0.125
"""Largest step beside what the rows tell, by root mean square; errors are half of it at most."""

_BLOCK = 64
_FINEST = 2.0**-10
"""Smallest step beside the rows themselves, where there is no known vector."""

_EXPONENTS = (-100, 100)
_MOST = 2**15 - 1
_HEAD = struct.Struct("<BII")
_LARGEST_RATIO = 64
"""Most bytes that a byte may become. Arrays that would be smaller are not coded at all."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of coded rows.

    Args:
        rows: Their number.
        width: Their length.
    """

    rows: int
    width: int

    @property
    def steps(self) -> int:
        """The number of steps: one for each begun block."""
        return -(-self.width // _BLOCK)

    def lines(self, *, relative: bool) -> int:
        """The number of lines of codes: several rows about their own mean have it in front."""
        return self.rows + (not relative and self.rows > 1)

    def bytes(self, *, relative: bool) -> int:
        """The size of all that is compressed."""
        return self.steps + 2 * self.lines(relative=relative) * self.width


def encode(rows: Tensor, known: Tensor | None = None) -> bytes | None:
    """Codes rows; None where float32 is as small or the numbers don't fit.

    Args:
        rows: (n, D) float32.
        known: (D,) float32, from which the receiver takes the distances; None for the rows' mean.
    """
    values = rows.detach().double().numpy()
    if known is not None:
        values = values - known.double().numpy()
    if not values.size or not np.isfinite(values).all():
        return None
    head = Head(*values.shape)
    if known is None:
        finest = _FINEST * _block_rms(values)
        size = np.maximum(SHARE * _block_rms(values - values.mean(axis=0)), finest)
    else:
        size = SHARE * _block_rms(values)
    with np.errstate(divide="ignore"):
        exponents = np.clip(np.floor(np.log2(size)), *_EXPONENTS)
    exponents = np.where(size > 0, exponents, 0).astype(np.int8)
    whole = np.rint(values / _steps(exponents, head.width))
    if np.abs(whole).max() > _MOST / 2:
        return None
    if head.lines(relative=known is not None) > head.rows:
        mean = np.rint(whole.mean(axis=0, keepdims=True))
        whole = np.concatenate([mean, whole - mean])
    packed = exponents.tobytes() + _planes(whole.astype(np.int16))
    press = zlib.compressobj(strategy=zlib.Z_RLE)
    data = _HEAD.pack(CODING, head.rows, head.width) + press.compress(packed) + press.flush()
    fits = len(data) < 4 * rows.numel() and len(packed) <= _LARGEST_RATIO * len(data)
    return data if fits else None


def head_of(data: memoryview, where: str) -> Head:
    """The head of coded rows.

    Raises:
        WireError: If it is none, or names a size that so few bytes can't have.
    """
    if len(data) < _HEAD.size:
        raise WireError("coded rows are cut off", where=where)
    version, rows, width = _HEAD.unpack_from(data)
    if version != CODING:
        raise WireError("an unknown coding", where=where, expected=str(CODING), got=str(version))
    head = Head(rows, width)
    if not rows or not width or head.bytes(relative=True) > _LARGEST_RATIO * len(data):
        raise WireError("coded rows of no possible size", where=where, got=f"{rows} x {width}")
    return head


def decode(data: memoryview, where: str, known: Tensor | None = None) -> Tensor:
    """The inverse of `encode`, (n, D) float32, all finite if what is known is.

    The caller has compared `head_of` with the size that the rows should have.

    Args:
        data: The coded rows.
        where: Name for errors.
        known: (D,) float32, as for `encode`.

    Raises:
        WireError: If they are damaged.
    """
    head, relative = head_of(data, where), known is not None
    size = head.bytes(relative=relative)
    press = zlib.decompressobj()
    try:
        packed = press.decompress(data[_HEAD.size :], size + 1)
    except zlib.error as error:
        raise WireError("coded rows are damaged", where=where) from error
    if len(packed) != size or not press.eof or press.unused_data:
        raise WireError("coded rows of another size than they say", where=where)
    exponents = np.frombuffer(packed, np.int8, head.steps)
    if exponents.min() < _EXPONENTS[0] or exponents.max() > _EXPONENTS[1]:
        raise WireError("coded rows with an impossible step", where=where)
    whole = _from_planes(packed[head.steps :]).reshape(-1, head.width)
    if len(whole) > head.rows:
        whole = whole[1:].astype(np.int32) + whole[0]
    # 17 bits times a power of two: exact in float32, and below its largest number.
    values = torch.from_numpy(whole.astype(np.float32) * _steps(exponents, head.width))
    return values if known is None else values + known


def _block_rms(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root mean square over the rows and the numbers of each block, (blocks,)."""
    squares = (values**2).mean(axis=0)
    starts = np.arange(0, len(squares), _BLOCK)
    counts = np.minimum(len(squares) - starts, _BLOCK)
    blocks: NDArray[np.float64] = np.sqrt(np.add.reduceat(squares, starts) / counts)
    return blocks


def _steps(exponents: NDArray[np.int8], width: int) -> NDArray[np.float32]:
    """The step of every number, (width,)."""
    return np.exp2(np.repeat(exponents.astype(np.float32), _BLOCK)[:width])


def _planes(whole: NDArray[np.int16]) -> bytes:
    """Small numbers of either sign as small ones without, all low bytes before all high bytes."""
    folded = ((whole << 1) ^ (whole >> 15)).astype("<u2").reshape(-1)
    return folded.view(np.uint8).reshape(-1, 2).T.tobytes()


def _from_planes(data: bytes) -> NDArray[np.int16]:
    pairs = np.frombuffer(data, np.uint8).reshape(2, -1).T
    folded = np.ascontiguousarray(pairs).view("<u2").reshape(-1)
    whole: NDArray[np.int16] = ((folded >> 1) ^ (0 - (folded & 1))).astype(np.int16)
    return whole
