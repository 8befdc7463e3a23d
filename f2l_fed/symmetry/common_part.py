"""The common part of many networks, read and written a block of its columns at a time.

It is `IsotypicParts.common` of `OutputSymmetry.split`, without a copy of all networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from f2l_fed.matrices.columns import Stored, run_of
from f2l_fed.symmetry.output_permutation import OutputSymmetry

_ALL = slice(None)


@dataclass(frozen=True, slots=True)
class CommonPart:
    """The common part of stored networks, or of their differences from others.

    Args:
        of: (n, D).
        symmetry: Splits them.
    """

    of: Stored
    symmetry: OutputSymmetry

    @property
    def shape(self) -> tuple[int, int]:
        """n, and H + R."""
        return self.of.shape[0], len(self.symmetry.hidden) + self.symmetry.output.shape[1]

    def block(self, rows: slice = _ALL, columns: slice = _ALL) -> Tensor:
        """See `f2l_fed.matrices.columns.Columns`."""
        hidden, means = _indices(self.symmetry, columns)
        found = []
        if len(hidden):
            found.append(self.of.block(rows, hidden))
        if means.shape[1] or not found:
            outputs = self.of.block(rows, means)
            found.append(sqrt(max(self.symmetry.classes, 1)) * outputs.mean(1))
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)


def rows_of(of: Stored, symmetry: OutputSymmetry) -> Tensor:
    """(n, K, R), `IsotypicParts.rows` of (n, D) networks, whose hidden layers aren't read."""
    rows = of.block(columns=symmetry.output)
    return rows - rows.mean(1, keepdim=True) if symmetry.classes else rows


@dataclass(frozen=True, slots=True)
class PlacedCommonPart:
    """Writes columns of a common part where they belong in networks with no other part.

    Args:
        symmetry: Joins them.
    """

    symmetry: OutputSymmetry

    def __call__(self, into: Tensor, columns: slice, values: Tensor) -> None:
        """Writes (n, w) values of some columns into (n, D) networks."""
        hidden, means = _indices(self.symmetry, columns)
        if len(hidden):
            into[:, run_of(hidden)] = values[:, : len(hidden)]
        if means.shape[1]:
            into[:, means] = values[:, None, len(hidden) :] / sqrt(self.symmetry.classes)


def _indices(symmetry: OutputSymmetry, columns: slice) -> tuple[Tensor, Tensor]:
    """The hidden weights, (h,), and the output weights, (K, r), of columns of the common part."""
    start, stop, _ = columns.indices(len(symmetry.hidden) + symmetry.output.shape[1])
    inner = len(symmetry.hidden)
    hidden = symmetry.hidden[start : min(stop, inner)]
    return hidden, symmetry.output[:, max(start - inner, 0) : max(stop - inner, 0)]
