"""Updates: matrices one below the other, read by blocks of columns.

Rules that need all updates at once never copy them into one matrix: they ask for a few columns
of all rows at a time, so they need memory for a block and not for the whole, and the parts may
be views of files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.core.dense_tensors import oddity
from f2l_fed.errors import AdmissionError, UsageError

BLOCK = 1 << 13
"""Columns at a time: of tens of updates they fit into a processor's cache, in float64 too."""

_SUMMED = 1 << 17
"""Columns of a sum at a time; one MiB in float64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Updates:
    """n updates with their weights.

    Args:
        size: D, the length of an update.
        parts: Matrices (n_j, D) float32 whose rows are the updates.
        weights: (n,) float64, positive, in the order of the rows.
    """

    size: int
    parts: tuple[Tensor, ...]
    weights: Tensor

    @classmethod
    def none(cls, size: int) -> Updates:
        """No updates, of length D."""
        return cls(size=size, parts=(), weights=torch.empty(0, dtype=torch.float64))

    @classmethod
    def of(cls, size: int, rows: Tensor, weights: Tensor) -> Updates:
        """Updates from rows and weights, which are checked.

        Args:
            size: D.
            rows: (n, D) float32, finite.
            weights: (n,), finite and positive: leave out an update that is not to count.

        Raises:
            UsageError: If shape or type is wrong.
            AdmissionError: If an update or a weight can't be used.
        """
        if found := oddity(rows) or oddity(weights):
            raise UsageError("the updates don't form a matrix of real numbers", got=found)
        if rows.ndim != 2 or rows.shape[1] != size or rows.dtype != torch.float32:
            raise UsageError(
                "the updates don't form a matrix",
                expected=f"(n, {size}) float32",
                got=f"{tuple(rows.shape)} {str(rows.dtype).removeprefix('torch.')}",
            )
        if weights.shape != (len(rows),):
            raise UsageError(
                "there must be one weight for each update",
                expected=str((len(rows),)),
                got=str(tuple(weights.shape)),
            )
        rows, weights = rows.detach(), weights.detach().double()
        _require(_finite(rows), "the update holds numbers that are not finite")
        _require(weights.isfinite() & (weights > 0), "the update's weight is not positive")
        return cls(size=size, parts=(rows,), weights=weights)

    def __len__(self) -> int:
        """The number of updates."""
        return len(self.weights)

    def __add__(self, other: Updates) -> Updates:
        """These updates and then the others."""
        if self.size != other.size:
            raise UsageError(
                "the updates have different lengths",
                expected=str(self.size),
                got=str(other.size),
            )
        return Updates(
            size=self.size,
            parts=self.parts + other.parts,
            weights=torch.cat([self.weights, other.weights]),
        )

    def columns(self, start: int, stop: int) -> Updates:
        """A slice of columns of all updates; views, so nothing is copied.

        A cluster can reduce such slices apart: results of coordinate rules are laid side by side,
        Gram matrices are added.
        """
        start, stop, _ = slice(start, stop).indices(self.size)
        return Updates(
            size=max(stop - start, 0),
            parts=tuple(part[:, start:stop] for part in self.parts),
            weights=self.weights,
        )

    def blocks(self, block: int = BLOCK) -> Iterator[Tensor]:
        """Yields (n, at most ``block``) float32: some columns of all rows, left to right."""
        for start in range(0, self.size, block):
            yield torch.cat([part[:, start : start + block] for part in self.parts])

    def reduce(self, rule: Callable[[Tensor], Tensor], block: int = BLOCK) -> Tensor:
        """Reduces every column by itself.

        Args:
            rule: (n, b) float32 to (b,) float64, column by column.
            block: Largest b.

        Returns:
            (D,) float64.
        """
        reduced = torch.empty(self.size, dtype=torch.float64)
        start = 0
        for part in self.blocks(block):
            reduced[start : start + part.shape[1]] = rule(part)
            start += part.shape[1]
        return reduced

    def combine(self, coefficients: Tensor, onto: Tensor | None = None) -> Tensor:
        """The sum of the rows times their coefficients.

        Args:
            coefficients: (n,) float64.
            onto: (D,) float64, to which it is added in place; None for zeros.

        Returns:
            (D,) float64; ``onto`` where it was given.
        """
        total = torch.zeros(self.size, dtype=torch.float64) if onto is None else onto
        rows = [row for part in self.parts for row in part]
        # A block of the sum stays in the cache while the rows are read once.
        for start in range(0, self.size, _SUMMED):
            block = total[start : start + _SUMMED]
            for row, coefficient in zip(rows, coefficients.tolist(), strict=True):
                block.add_(row[start : start + _SUMMED], alpha=coefficient)
        return total


def _finite(rows: Tensor) -> Tensor:
    """(n,) bool, whether all numbers of a row are finite."""
    # A finite sum proves it and is many times cheaper; a sum that overflowed proves nothing.
    good = rows.sum(dim=1).isfinite()
    for row in (~good).nonzero().flatten().tolist():
        good[row] = rows[row].isfinite().all()
    return good


def _require(good: Tensor, what: str) -> None:
    if not good.all():
        first = int((~good).nonzero()[0])
        raise AdmissionError(
            what, where=f"update {first}", remedy="Screen updates before they are aggregated."
        )
