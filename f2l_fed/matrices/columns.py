"""Matrices that are computed as they are read, a block at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

_ALL = slice(None)


class Columns(Protocol):
    """An (n, p) matrix of which a block is read at a time."""

    @property
    def shape(self) -> tuple[int, int]:
        """n and p."""

    def block(self, rows: slice = _ALL, columns: slice = _ALL) -> Tensor:
        """Some rows and columns; a view of what is stored, or a copy."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored matrix, or its difference from another one and a row.

    Args:
        matrix: (n, p).
        other: (n, p), what is taken from it; None for nothing.
        row: (p,), what is taken from each of its rows; None for nothing.
    """

    matrix: Tensor
    other: Tensor | None = None
    row: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """See `Columns`."""
        return self.matrix.shape[0], self.matrix.shape[1]

    def block(self, rows: slice = _ALL, columns: slice | Tensor = _ALL) -> Tensor:
        """See `Columns`; the columns may be named by a (q,) or (k, q) index, too."""
        found = _taken(self.matrix[rows], columns)
        if self.other is not None:
            other = _taken(self.other[rows], columns)
            return found - (other if self.row is None else self.row[columns] + other)
        return found if self.row is None else found - self.row[columns]


Place = Callable[[Tensor, slice, Tensor], None]
"""Writes (n, w) values of some columns into a matrix."""


def place_in_order(into: Tensor, columns: slice, values: Tensor) -> None:
    """`Place` of a matrix whose columns lie as they are numbered."""
    into[:, columns] = values


def _taken(matrix: Tensor, columns: slice | Tensor) -> Tensor:
    return matrix[:, run_of(columns) if isinstance(columns, Tensor) else columns]


def run_of(index: Tensor) -> Tensor | slice:
    """An ascending index as a slice where it leaves nothing out: then nothing is copied."""
    if index.ndim != 1 or not len(index):
        return index
    first, last = int(index[0]), int(index[-1])
    return slice(first, last + 1) if last - first == len(index) - 1 else index


def as_columns(matrix: Tensor | Columns) -> Columns:
    """A tensor as what blocks are read of."""
    return Stored(matrix) if isinstance(matrix, Tensor) else matrix
