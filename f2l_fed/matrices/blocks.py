"""The blocks in which large matrices are read, and the parts of a matrix that are jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

_BLOCK = 2**24
"""Numbers in a block, which is in float64 for a while."""

_PARTS = 16
"""Most parts of a matrix, however large it is; a sum over parts is the same wherever each is
computed."""


def blocks(rows: int, columns: int | slice) -> Iterator[slice]:
    """Columns of a block each, of all or of a part."""
    part = slice(0, columns) if isinstance(columns, int) else columns
    width = max(1, _BLOCK // max(rows, 1))
    return (
        slice(start, min(start + width, part.stop)) for start in range(part.start, part.stop, width)
    )


def parts(rows: int, columns: int) -> list[slice]:
    """At most `_PARTS` parts of the columns, of whole blocks."""
    starts = [block.start for block in blocks(rows, columns)]
    each = -(-len(starts) // _PARTS)
    return [
        slice(start, min([columns, *starts[number + each : number + each + 1]]))
        for number, start in enumerate(starts)
        if number % max(each, 1) == 0
    ]


class EachPart(Protocol):
    """Runs a job for each part of a matrix, here or elsewhere."""

    def __call__(self, job: Callable[..., T], some: Sequence[slice], *given: Any) -> Iterable[T]:
        """Yields ``job(part, *given)`` for each part, in their order.

        Args:
            job: A function of a module.
            some: The parts.
            given: The same for all; where they run elsewhere, what they write into must lie on a
                disk.
        """


def in_turn(job: Callable[..., T], some: Sequence[slice], *given: Any) -> Iterable[T]:
    """`EachPart` in this process, one after the other."""
    return (job(part, *given) for part in some)
