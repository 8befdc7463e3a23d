"""Ridge regression with many outputs, its strength by leave-one-out cross-validation.

One thin decomposition serves features and examples alike: with X = U S Vᵀ the fitted map is
V diag(s / (s² + λ)) Uᵀ Y, of rank at most min(n, p), so neither a p x p nor an n x n system is
ever solved for the larger of the two. Its rank may be bounded: of all maps of a rank, the one
whose predictions for the examples are nearest to those of the whole map is kept, and of all ranks
the least with which next to nothing of them is lost.

Only Gram matrices and what is as small are in float64. Features and outputs are read a block at a
time, so that beside them, the held-out predictions and the map a fit needs memory for a block and
for an n x r matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.prior.gram_matrix import blocks, column_means, eigenvectors, gram_matrix
from f2l_fed.prior.ridge_map import RidgeMap

_LEAST_RANK, _LOST = 16, 1e-3
"""Of a map whose rank is bounded: the least, and the share of the outputs' variance that it may
leave out of its predictions."""

_EXACT, _OUTPUTS, _MIXED = 1024, 192, 64
"""Examples up to which strengths are compared by all outputs; principal outputs, and mixtures of
the rest, by which they are where there are more."""


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
        mixture: (n, k) float64, weights of the examples' outputs in the map's right factor.
        mean_weight: Weight of every example in the intercept.
    """

    map: RidgeMap
    strength: float
    held_out: Tensor
    basis: Tensor
    kept: Tensor
    mixture: Tensor
    mean_weight: float

    def weights(self, x: Tensor) -> Tensor:
        """Weight of every example's output in a prediction: map(x) = weights(x) y.

        Args:
            x: (m, p) float32.

        Returns:
            (m, n) float64.
        """
        coordinates = (x - self.map.x_mean) @ self.map.left
        return coordinates.double() @ self.mixture.T + self.mean_weight

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
    rank: int | None = None,
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
        rank: Largest rank of the map; held-out predictions are those of the whole one.

    Returns:
        See `RidgeFit`; in float32.

    Reference:
        Allen: The relationship between variable selection and data augmentation and a method for
        prediction. Technometrics 16, 1974 (leave-one-out residuals without refitting). Breiman et
        al.: Classification and regression trees, 1984, section 3.4.3 (one standard error).
        Mukherjee, Zhu: Reduced rank ridge regression and its kernel extensions. Statistical
        Analysis and Data Mining 4, 2011.

    >>> x = torch.linspace(-1, 1, 9)[:, None]
    >>> bool((fit_ridge(x, 3 * x + 1).map(x) - (3 * x + 1)).abs().max() < 0.1)
    True
    """
    n, offset = len(x), 1.0 if centre else 0.0
    x_mean, y_mean = column_means(x, centre), column_means(y, centre)
    u, s, v = _thin_svd(x, x_mean)
    grid = _largest_square(s) * torch.logspace(-6, 2, strengths, dtype=torch.float64)
    few = _as_far_apart(y, y_mean)
    seen = u.T @ few
    scores = torch.stack(
        [
            (few - _without_group(u, _kept(s, one), seen, few, group, offset / n))
            .square()
            .sum(1)
            .view(-1, group)
            .sum(1)
            for one in grid
        ]
    )
    mean = scores.mean(1)
    best = int(mean.argmin())
    error = scores[best].std(correction=0) / len(scores[best]) ** 0.5
    strength = grid[int((mean <= mean[best] + standard_errors * error).nonzero().max())]
    kept = _kept(s, strength)
    mixture, left = u * kept, torch.eye(len(s), dtype=torch.float64)
    if rank is not None and len(s) > _LEAST_RANK:
        fitted = kept[:, None] * seen
        left = fitted @ _principal_outputs(fitted, float(few.square().sum()))[:, :rank]
        left = left / left.norm(dim=0)
        mixture = mixture @ left
    left = left / s[:, None]
    right, held_out = torch.empty(left.shape[1], y.shape[1]), torch.empty(*y.shape)
    # Of fewer examples than twice the directions, one product with a matrix of their weights.
    weights = None
    if n < 2 * len(s):
        eye = torch.eye(n, dtype=torch.float64)
        weights = _without_group(u, kept, u.T, eye, group, offset / n)
    for columns in blocks(n, y.shape[1]):
        outputs = y[:, columns].double() - y_mean[columns]
        right[:, columns] = (mixture.T @ outputs).float()
        found = (
            _without_group(u, kept, u.T @ outputs, outputs, group, offset / n)
            if weights is None
            else weights @ outputs
        )
        held_out[:, columns] = (found + y_mean[columns]).float()
    return RidgeFit(
        map=RidgeMap(
            x_mean=x_mean.float(),
            y_mean=y_mean.float(),
            left=_times(v, x, x_mean, u, s, left),
            right=right,
        ),
        strength=float(strength),
        held_out=held_out,
        basis=u,
        kept=kept,
        mixture=mixture,
        mean_weight=offset / n,
    )


def _thin_svd(x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """U (n, r), s (r,), V (p, r) from the smaller Gram matrix; directions of no weight dropped.

    V is None where it is the larger one, see `_times`.
    """
    n, p = x.shape
    values, vectors = eigenvectors(gram_matrix(x, mean))
    s = values.sqrt()
    if n <= p:
        return vectors, s, None
    u = torch.cat([(x[some].double() - mean) @ vectors / s for some in blocks(p, n)])
    return u, s, vectors


def _times(
    v: Tensor | None, x: Tensor, mean: Tensor, u: Tensor, s: Tensor, factor: Tensor
) -> Tensor:
    """(p, k) float32, the right singular vectors times an (r, k) factor."""
    if v is not None:
        return (v @ factor).float()
    product, mix = torch.empty(x.shape[1], factor.shape[1]), u @ (factor / s[:, None])
    for some in blocks(*x.shape):
        product[some] = ((x[:, some].double() - mean[some]).T @ mix).float()
    return product


def _as_far_apart(y: Tensor, mean: Tensor) -> Tensor:
    """(n, q) less their mean, as few outputs with which errors are as large.

    Gram matrices are all that errors depend on: n outputs have the same. Of many examples the
    principal outputs, and random mixtures of the rest, have it nearly.
    """
    n, q = y.shape
    many = n > _EXACT and q > _OUTPUTS + _MIXED
    if q <= n and not many:
        return y.double() - mean
    values, vectors = torch.linalg.eigh(gram_matrix(y, mean))
    compact: Tensor = vectors * values.clamp(min=0).sqrt() if q > n else vectors
    if many:
        rng, rest = torch.Generator().manual_seed(0), len(values) - _OUTPUTS
        mixtures = torch.randn(rest, _MIXED, generator=rng, dtype=torch.float64) / _MIXED**0.5
        compact = torch.cat([compact[:, rest:], compact[:, :rest] @ mixtures], dim=1)
    if q > n:
        return compact
    return torch.cat([(y[some].double() - mean) @ compact for some in blocks(q, n)])


def _principal_outputs(fitted: Tensor, total: float) -> Tensor:
    """(q, k), the principal directions of (r, q) predictions without those that say least.

    Args:
        fitted: Predictions along the left singular vectors.
        total: The outputs' squares.
    """
    values, directions = eigenvectors(fitted.T @ fitted)
    told = int((values.cumsum(0) > _LOST * total).sum())
    return directions[:, -max(told, _LEAST_RANK) :].flip(1)


def _kept(s: Tensor, strength: Tensor) -> Tensor:
    """(r,), the share of each direction that a strength leaves."""
    return s**2 / (s**2 + strength)


def _largest_square(s: Tensor) -> float:
    return float(s.max()) ** 2 if len(s) else 1.0


def _without_group(
    u: Tensor, kept: Tensor, seen: Tensor, y: Tensor, group: int, offset: float
) -> Tensor:
    """(n, q) float64, predictions of the fits that leave a group out: y - (I - H_gg)⁻¹ e_g."""
    residual = y - u @ (kept[:, None] * seen)
    blocks = u.view(len(u) // group, group, u.shape[1])
    hat = blocks * kept @ blocks.transpose(1, 2) + offset
    errors = residual.view(-1, group, residual.shape[1])
    if group == 1:
        return y - (errors / (1 - hat)).view_as(residual)
    eye = torch.eye(group, dtype=torch.float64)
    solved: Tensor = torch.linalg.solve(eye - hat, errors)
    return y - solved.reshape(residual.shape)
