"""Affine maps of low rank."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.prior.gram_matrix import eigenvectors


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

    def plus(self, other: RidgeMap, weight: float, rank: int | None = None) -> RidgeMap:
        """x -> self(x) + weight * other(x), as one map of no higher rank than needed.

        Maps that were fitted on the same features share their row space, so adding many of them
        does not let the factors grow. Where sites come and go, a rank bounds them.
        """
        if not len(self.x_mean):
            return self
        moved = (self.x_mean - other.x_mean) @ other.left @ other.right
        left, right = _trimmed(
            torch.cat([self.left, other.left], dim=1).double(),
            torch.cat([self.right, weight * other.right]).double(),
        )
        if rank is not None and len(right) > rank:
            mix = eigenvectors(right @ right.T)[1][:, -rank:]
            left, right = left @ mix, mix.T @ right
        return RidgeMap(
            x_mean=self.x_mean,
            y_mean=self.y_mean + weight * (other.y_mean + moved),
            left=left.float(),
            right=right.float(),
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


def _trimmed(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The same product with orthonormal columns on the left, without directions of no weight."""
    # Columns differ in size by many orders; only their directions decide what can be dropped.
    size = left.norm(dim=0).clamp(min=1e-300)
    scaled = left / size
    values, vectors = eigenvectors(scaled.T @ scaled)
    s = values.sqrt()
    return scaled @ vectors / s, (s[:, None] * vectors.T) @ (size[:, None] * right)
