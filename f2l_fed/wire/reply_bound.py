"""The bound of a reply: the most objects and bytes that one message of a site may have.

A reply's size follows from what was asked: its networks and probes have the layout's size, and
everything else is a short fixed list. Whoever takes replies refuses what is larger, before it is
read or kept. Nothing here imports torch: Flower's SuperLink reads the bound too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from f2l_fed.targets.layout import WeightLayout

LARGEST_NETWORK_TENSORS = 100
LARGEST_NETWORK_BYTES = 2 * 2**20
"""At least those of the largest built-in network."""

MOST_EPISODES = 50

_CHUNK_BYTES = 5 * 2**20
"""Flower's SuperLink gets a tensor in pieces of this size."""

_FIXED_OBJECTS = 5
"""The message, its record of records, the settings, the numbers and, in protocol 4, the arrays."""

_TENSOR_BYTES, _CHUNK_EXTRA_BYTES, _FIXED_BYTES = 640, 192, 16_384
"""Names, digests and headers of a tensor, of a further piece, and of everything else."""

_MARGIN = 1.25


@dataclass(frozen=True, slots=True)
class ReplyBound:
    """The bound of one reply.

    Args:
        objects: Most objects, in Flower's sense: nodes of the reply's object tree.
        bytes: Most bytes of all its objects together, as they are sent.
    """

    objects: int
    bytes: int


def reply_bound(
    layout: WeightLayout, episodes: int, body: WeightLayout | None = None
) -> ReplyBound:
    """The bound for one site and one message, with a margin of a quarter.

    Without a body it is enough for protocol 3 too, since a site that speaks it may come at any
    time; with one nobody answers in protocol 3, and a reply is a few objects.

    Args:
        layout: Of the network that the site was asked for, or of its adapted part.
        episodes: Number of probes that it was asked for; an update has at most as many networks.
        body: Layout of the body; None without one.
    """
    if body is not None:
        return _in_arrays([episodes * _bytes_of(layout)] * 2 + [_bytes_of(body)])
    tensors = [
        (len(name.encode()), 4 * prod(shape))
        for name, shape in zip(layout.names, layout.shapes, strict=True)
    ]
    return _either(tensors, episodes)


def largest_built_in() -> ReplyBound:
    """The bound for the largest built-in network and fifty episodes, where no other is known."""
    share = LARGEST_NETWORK_BYTES // LARGEST_NETWORK_TENSORS
    return _either([(64, share)] * LARGEST_NETWORK_TENSORS, MOST_EPISODES)


def _bytes_of(layout: WeightLayout) -> int:
    return 4 * sum(prod(shape) for shape in layout.shapes)


def _either(tensors: Sequence[tuple[int, int]], episodes: int) -> ReplyBound:
    """The bound for both protocols; arguments as of `_in_tensors`."""
    rows = episodes * sum(size for _, size in tensors)
    old, new = _in_tensors(tensors, episodes), _in_arrays([rows, rows])
    return ReplyBound(objects=max(old.objects, new.objects), bytes=max(old.bytes, new.bytes))


def _in_arrays(sizes: Sequence[int]) -> ReplyBound:
    """The bound in protocol 4 for arrays of these sizes, in bytes."""
    pieces = [1 + size // _CHUNK_BYTES for size in sizes]
    return ReplyBound(
        objects=int(_MARGIN * (_FIXED_OBJECTS + sum(1 + count for count in pieces))),
        bytes=int(
            _MARGIN
            * (
                _FIXED_BYTES
                + sum(
                    _TENSOR_BYTES + size + _CHUNK_EXTRA_BYTES * count
                    for size, count in zip(sizes, pieces, strict=True)
                )
            )
        ),
    )


def _in_tensors(tensors: Sequence[tuple[int, int]], episodes: int) -> ReplyBound:
    """The bound in protocol 3 for tensors given by the lengths of names and contents, in bytes."""
    rows = 2 * episodes
    pieces = [1 + size // _CHUNK_BYTES for _, size in tensors]
    objects = _FIXED_OBJECTS - 1 + rows * (1 + sum(1 + count for count in pieces))
    row_bytes = _TENSOR_BYTES + sum(
        _TENSOR_BYTES + 2 * name + size + _CHUNK_EXTRA_BYTES * count
        for (name, size), count in zip(tensors, pieces, strict=True)
    )
    return ReplyBound(
        objects=int(_MARGIN * objects),
        bytes=int(_MARGIN * (_FIXED_BYTES + rows * row_bytes)),
    )
