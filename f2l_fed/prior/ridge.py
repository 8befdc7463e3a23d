"""Ridge regression with many outputs, its strength by leave-one-out cross-validation.

One thin decomposition serves features and examples alike: with X = U S Vᵀ the fitted map is
V diag(s / (s² + λ)) Uᵀ Y, of rank at most min(n, p), so neither a p x p nor an n x n system is
ever solved for the larger of the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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

    def plus(self, other: RidgeMap, weight: float) -> RidgeMap:
        """x -> self(x) + weight * other(x), as one map of no higher rank than needed.

        Maps that were fitted on the same features share their row space, so adding many of them
        does not let the factors grow.
        """
        if not len(self.x_mean):
            return self
        moved = (self.x_mean - other.x_mean) @ other.left @ other.right
        left, right = _trimmed(
            torch.cat([self.left, other.left], dim=1).double(),
            torch.cat([self.right, weight * other.right]).double(),
        )
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
        said = (x - self.x_mean).double() @ left @ right
        _, s, directions = _thin_svd(said)
        # By rising size, as the eigenvalues come.
        kept = directions[:, s.argsort(descending=True)[:rank]]
        return RidgeMap(
            x_mean=self.x_mean,
            y_mean=self.y_mean,
            left=(left @ (right @ kept)).float(),
            right=kept.T.float().contiguous(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RidgeFit:
    """A fitted map with its held-out predictions and its weights of the examples.

    Args:
        map: The map.
        strength: λ that cross-validation chose.
        held_out: (n, q) float32, for each example the prediction of the map fitted without that
            example's group; exact, not refitted.
        basis: (n, r) float64, left singular vectors of the features.
        kept: (r,) float64, share of each that λ leaves, from 0 to 1.
        mean_weight: Weight of every example in the intercept.
    """

    map: RidgeMap
    strength: float
    held_out: Tensor
    basis: Tensor
    kept: Tensor
    mean_weight: float

    def weights(self, x: Tensor) -> Tensor:
        """Weight of every example's output in a prediction: map(x) = weights(x) y.

        Args:
            x: (m, p) float32.

        Returns:
            (m, n) float64.
        """
        coordinates = (x - self.map.x_mean) @ self.map.left
        return coordinates.double() @ self.basis.T + self.mean_weight

    def held_out_weights(self, group: slice) -> Tensor:
        """The same for one group of examples and the map fitted without them.

        Args:
            group: Where they lie.

        Returns:
            (length of the group, n) float64, zero at the group's own examples.
        """
        hat = (self.basis[group] * self.kept) @ self.basis.T + self.mean_weight
        own = hat[:, group]
        weights: Tensor = torch.linalg.solve(torch.eye(len(own), dtype=own.dtype) - own, hat)
        weights[:, group] = 0
        return weights


def fit_ridge(
    x: Tensor,
    y: Tensor,
    *,
    group: int = 1,
    centre: bool = True,
    standard_errors: float = 1.0,
    strengths: int = 25,
) -> RidgeFit:
    """Fits y on x.

    The strength λ is the largest whose cross-validation score lies within some standard errors of
    the best one.

    Args:
        x: (n, p) features.
        y: (n, q) outputs.
        group: Examples come in runs of this many that are left out together; n is a multiple.
        centre: Fit an unpenalised intercept. Without it both means are taken to be zero.
        standard_errors: How many; 0 takes the best one.
        strengths: Number of λ on the grid, logarithmic from 1e-6 to 1e2 times the largest
            squared singular value.

    Returns:
        See `RidgeFit`; computed in float64, returned in float32.

    Reference:
        Allen: The relationship between variable selection and data augmentation and a method for
        prediction. Technometrics 16, 1974 (leave-one-out residuals without refitting). Breiman et
        al.: Classification and regression trees, 1984, section 3.4.3 (one standard error).

    >>> x = torch.linspace(-1, 1, 9)[:, None]
    >>> bool((fit_ridge(x, 3 * x + 1).map(x) - (3 * x + 1)).abs().max() < 0.1)
    True
    """
    n, offset = len(x), 1.0 if centre else 0.0
    (xc, x_mean), (yc, y_mean) = _centred(x, centre), _centred(y, centre)
    u, s, v = _thin_svd(xc)
    del xc
    grid = _largest_square(s) * torch.logspace(-6, 2, strengths, dtype=torch.float64)

    def held_out_errors(strength: Tensor, y: Tensor, seen: Tensor) -> Tensor:
        keep = s**2 / (s**2 + strength)
        residual = y - u @ (keep[:, None] * seen)
        return _leave_out(u * keep.sqrt(), residual, group, offset / n)

    few, coordinates = _as_far_apart(yc), u.T @ yc
    seen = u.T @ few
    scores = torch.stack(
        [
            held_out_errors(strength, few, seen).square().sum(1).view(-1, group).sum(1)
            for strength in grid
        ]
    )
    mean = scores.mean(1)
    best = int(mean.argmin())
    error = scores[best].std(correction=0) / len(scores[best]) ** 0.5
    strength = grid[int((mean <= mean[best] + standard_errors * error).nonzero().max())]
    return RidgeFit(
        map=RidgeMap(
            x_mean=x_mean.float(),
            y_mean=y_mean.float(),
            left=(v * (s / (s**2 + strength))).float(),
            right=coordinates.float(),
        ),
        strength=float(strength),
        held_out=(y - held_out_errors(strength, yc, coordinates)).float(),
        basis=u,
        kept=s**2 / (s**2 + strength),
        mean_weight=offset / n,
    )


def _trimmed(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The same product with orthonormal columns on the left, without directions of no weight."""
    # Columns differ in size by many orders; only their directions decide what can be dropped.
    size = left.norm(dim=0).clamp(min=1e-300)
    basis, s, v = _thin_svd(left / size)
    return basis, (s[:, None] * v.T) @ (size[:, None] * right)


def _centred(x: Tensor, centre: bool) -> tuple[Tensor, Tensor]:
    """The rows in float64 less their mean, and the mean."""
    x = x.double()
    mean = x.mean(0) if centre else x.new_zeros(x.shape[1])
    return x - mean, mean


def _as_far_apart(y: Tensor) -> Tensor:
    """(n, q) to (n, at most n) with the same Gram matrix, which is all that errors depend on."""
    if y.shape[1] <= len(y):
        return y
    values, vectors = torch.linalg.eigh(y @ y.T)
    compact: Tensor = vectors * values.clamp(min=0).sqrt()
    return compact


def _largest_square(s: Tensor) -> float:
    return float(s.max()) ** 2 if len(s) else 1.0


def _thin_svd(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U (n, r), s (r,), V (p, r) from the smaller Gram matrix; directions of no weight dropped."""
    n, p = x.shape
    gram = x @ x.T if n <= p else x.T @ x
    values, vectors = torch.linalg.eigh(gram)
    keep = values > values[-1].clamp(min=1e-300) * 1e-12
    s, vectors = values[keep].sqrt(), vectors[:, keep]
    if n <= p:
        return vectors, s, x.T @ vectors / s
    return x @ vectors / s, s, vectors


def _leave_out(half_hat: Tensor, residual: Tensor, group: int, offset: float) -> Tensor:
    """Residuals of the fits that leave a group out: (I - H_gg)⁻¹ e_g; (n, q) float64."""
    blocks = half_hat.view(len(half_hat) // group, group, half_hat.shape[1])
    hat = blocks @ blocks.transpose(1, 2) + offset
    errors = residual.view(-1, group, residual.shape[1])
    eye = torch.eye(group, dtype=torch.float64)
    solved: Tensor = torch.linalg.solve(eye - hat, errors)
    return solved.reshape(residual.shape)
