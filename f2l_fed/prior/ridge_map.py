"""Affine maps of low rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.matrices.blocks import blocks
from f2l_fed.matrices.gram import eigenvectors
from f2l_fed.matrices.workspace import IN_MEMORY, Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class RidgeMap:
    """x -> (x - x_mean) left right + y_mean.

    Args:
        x_mean: (p,) float32.
        y_mean: (q,) float32.
        left: (p, r) float32.
        right: (r, q) float32.
    """

    x_mean: Tensor
    y_mean: Tensor
    left: Tensor
    right: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """(…, p) float32 to (…, q)."""
        return (x - self.x_mean) @ self.left @ self.right + self.y_mean

    def plus(
        self,
        other: RidgeMap,
        weight: float,
        rank: int | None = None,
        work: Workspace = IN_MEMORY,
    ) -> RidgeMap:
        """x -> self(x) + weight * other(x), as one map of no higher rank than needed.

        Maps that were fitted on the same features share their row space, so adding many of them
        does not let the factors grow. Where sites come and go, a rank bounds them.
        """
        if not len(self.x_mean):
            return self
        moved = (self.x_mean - other.x_mean) @ other.left @ other.right
        lefts, rights = (self.left, other.left), (self.right, other.right)
        factors = torch.ones(sum(map(len, rights)), dtype=torch.float64)
        factors[len(self.right) :] = weight
        # Columns differ in size by many orders; only their directions decide what can be dropped.
        inner = _gram([left.T for left in lefts])
        size = inner.diagonal().sqrt().clamp(min=1e-300)
        values, vectors = eigenvectors(inner / size[:, None] / size)
        s = values.sqrt()
        from_left = vectors / s / size[:, None]
        from_right = s[:, None] * vectors.T * size * factors
        if rank is not None and len(s) > rank:
            mix = eigenvectors(from_right @ _gram(rights) @ from_right.T)[1][:, -rank:]
            from_left, from_right = from_left @ mix, mix.T @ from_right
        left = work.empty(len(self.x_mean), from_left.shape[1])
        right = work.empty(len(from_right), len(self.y_mean))
        for some in blocks(len(inner), len(left)):
            left[some] = (torch.cat([one[some] for one in lefts], 1).double() @ from_left).float()
        for some in blocks(len(inner), right.shape[1]):
            both = torch.cat([one[:, some] for one in rights]).double()
            right[:, some] = (from_right @ both).float()
        return RidgeMap(
            x_mean=self.x_mean,
            y_mean=self.y_mean + weight * (other.y_mean + moved),
            left=left,
            right=right,
        )

    def truncated(self, x: Tensor, rank: int) -> RidgeMap:
        """The map of at most this rank that is nearest to this one on some features.

        What it says of them is projected on its principal directions there.

        Args:
            x: (n, p) float32, the features.
            rank: Largest rank, at least 1.
        """
        if self.left.shape[1] <= rank:
            return self
        left, right = self.left.double(), self.right.double()
        directions, triangle = torch.linalg.qr(right.T)
        said = ((x - self.x_mean) @ self.left).double() @ triangle.T
        # By rising size, as the eigenvalues come.
        kept = directions @ eigenvectors(said.T @ said)[1][:, -rank:]
        return RidgeMap(
            x_mean=self.x_mean,
            y_mean=self.y_mean,
            left=(left @ (right @ kept)).float(),
            right=kept.T.float().contiguous(),
        )


def _gram(rows: Sequence[Tensor]) -> Tensor:
    """(k, k) float64, products of the rows of matrices that lie one below the other."""
    count = sum(map(len, rows))
    gram = torch.zeros(count, count, dtype=torch.float64)
    for some in blocks(count, rows[0].shape[1]):
        block = torch.cat([one[:, some] for one in rows]).double()
        gram += block @ block.T
    return gram
