"""The coding of large arrays: whole multiples of small steps, compressed.

Sixty-four neighbouring numbers of all rows share a step, a power of two. It is a share of the rows'
root mean square distance from what both sides know, such as the starts of networks, or from their
own mean, so the error is small beside what the rows tell; what has not moved is exact. zlib of the
standard library is as small as a newer compressor here: what is left has no repetitions.

Both sizes are in front and are compared with what they should be before anything is unpacked.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from f2l_fed.errors import LayoutMismatch, WireError

CODING = 1
"""The version of this coding, which a request names for its reply."""

_BLOCK = 64
_FINEST = 2.0**-10
"""Smallest step, as a share of the root mean square of rows that are known by themselves alone."""

_EXPONENTS = (-100, 100)
_MOST = 2**15 - 1
_HEAD = struct.Struct("<BBII")
_LARGEST_RATIO = 64
"""Most bytes that a byte may become. Arrays that would be smaller are not coded at all."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of coded rows.

    Args:
        relative: Whether they are distances from rows that both sides know.
        rows: Their number.
        width: Their length.
    """

    relative: bool
    rows: int
    width: int

    @property
    def steps(self) -> int:
        """The number of steps: one for each begun block."""
        return -(-self.width // _BLOCK)

    @property
    def numbers(self) -> int:
        """The number of whole numbers: several rows have their mean in front."""
        return (self.rows + (not self.relative and self.rows > 1)) * self.width

    @property
    def bytes(self) -> int:
        """The size of all that is compressed."""
        return self.steps + 2 * self.numbers


def encode(rows: Tensor, *, share: float, known: Tensor | None = None) -> bytes | None:
    """Codes rows; None where float32 is as small or the numbers don't fit.

    Args:
        rows: (n, D) float32.
        share: Step as a share of the rows' root mean square distance; at most this is the largest
            error beside it.
        known: (n, D) float32, from which the receiver takes the distances; None for the mean.
    """
    values = rows.detach().double().numpy()
    head = Head(known is not None, *values.shape)
    if not values.size or not np.isfinite(values).all():
        return None
    if known is not None:
        values = values - known.double().numpy()
    spread = values if head.relative else values - values.mean(axis=0)
    size = share * _block_rms(spread)
    if not head.relative:
        size = np.maximum(size, _FINEST * _block_rms(values))
    with np.errstate(divide="ignore"):
        exponents = np.clip(np.floor(np.log2(size)), *_EXPONENTS)
    exponents = np.where(size > 0, exponents, 0)
    whole = np.rint(values / _by_number(exponents, head.width))
    if np.abs(whole).max() > _MOST / 2:
        return None
    if head.numbers > whole.size:
        mean = np.rint(whole.mean(axis=0, keepdims=True))
        whole = np.concatenate([mean, whole - mean])
    packed = exponents.astype(np.int8).tobytes() + _planes(whole.astype(np.int16))
    press = zlib.compressobj(strategy=zlib.Z_RLE)
    data = _HEAD.pack(CODING, head.relative, head.rows, head.width)
    data += press.compress(packed) + press.flush()
    fits = len(data) < 4 * rows.numel() and len(packed) <= _LARGEST_RATIO * len(data)
    return data if fits else None


def head_of(data: bytes, where: str) -> Head:
    """The head of coded rows.

    Raises:
        WireError: If it is none, or says more rows than so many bytes can hold.
    """
    if len(data) < _HEAD.size:
        raise WireError("coded rows are cut off", where=where)
    version, relative, rows, width = _HEAD.unpack_from(data)
    if version != CODING or relative > 1:
        raise WireError("an unknown coding", where=where, expected=str(CODING), got=str(version))
    head = Head(bool(relative), rows, width)
    if head.bytes > _LARGEST_RATIO * len(data) or not rows or not width:
        raise WireError("coded rows of no possible size", where=where, got=f"{rows} x {width}")
    return head


def decode(data: bytes, where: str, *, known: Tensor | None = None) -> Tensor:
    """The inverse of `encode`, (n, D) float32.

    The caller has compared `head_of` with the size that the rows should have.

    Args:
        data: The coded rows.
        where: Name for errors.
        known: (n, D) float32 for rows that are relative; None for the distances themselves.

    Raises:
        WireError: If they are damaged.
        LayoutMismatch: If what is known has another size.
    """
    head = head_of(data, where)
    press = zlib.decompressobj()
    try:
        packed = press.decompress(data[_HEAD.size :], head.bytes + 1)
    except zlib.error as error:
        raise WireError("coded rows are damaged", where=where) from error
    if len(packed) != head.bytes or not press.eof or press.unused_data:
        raise WireError("coded rows of another size than they say", where=where)
    exponents = np.frombuffer(packed, np.int8, head.steps).astype(np.float64)
    if np.abs(exponents).max() > _EXPONENTS[1]:
        raise WireError("coded rows with an impossible step", where=where)
    whole = _from_planes(packed[head.steps :]).reshape(-1, head.width).astype(np.float64)
    if len(whole) > head.rows:
        whole = whole[1:] + whole[:1]
    values = torch.from_numpy(whole * _by_number(exponents, head.width))
    if head.relative and known is not None:
        if known.shape != values.shape:
            raise LayoutMismatch("rows of another size than what is known", where=where)
        values = values + known.double()
    return values.float()


def _block_rms(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root mean square over the rows and the numbers of each block, (blocks,)."""
    squares = (values**2).mean(axis=0)
    starts = np.arange(0, len(squares), _BLOCK)
    counts = np.minimum(len(squares) - starts, _BLOCK)
    blocks: NDArray[np.float64] = np.sqrt(np.add.reduceat(squares, starts) / counts)
    return blocks


def _by_number(exponents: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """The step of every number, (width,)."""
    steps: NDArray[np.float64] = np.exp2(np.repeat(exponents, _BLOCK)[:width])
    return steps


def _planes(whole: NDArray[np.int16]) -> bytes:
    """Small numbers of either sign as small ones without, all low bytes before all high bytes."""
    folded = ((whole << 1) ^ (whole >> 15)).astype("<u2").reshape(-1)
    return folded.view(np.uint8).reshape(-1, 2).T.tobytes()


def _from_planes(data: bytes) -> NDArray[np.int16]:
    pairs = np.frombuffer(data, np.uint8).reshape(2, -1).T
    folded = np.ascontiguousarray(pairs).view("<u2").reshape(-1).astype(np.int32)
    whole: NDArray[np.int16] = ((folded >> 1) ^ -(folded & 1)).astype(np.int16)
    return whole
