"""Ridge regression with many outputs, its strength by leave-one-out cross-validation.

One thin decomposition serves features and examples alike: with X = U S Vᵀ the fitted map is
V diag(s / (s² + λ)) Uᵀ Y, of rank at most min(n, p), so neither a p x p nor an n x n system is
ever solved for the larger of the two. Its rank may be bounded: of all maps of a rank, the one
whose predictions for the examples are nearest to those of the whole map is kept, and of all ranks
the least whose held-out predictions are as good as any.

Only Gram matrices and what is as small are in float64. Features and outputs are read a block at a
time, each of them twice, so that beside them, the held-out predictions and the map a fit needs
memory for a block and for an n x r matrix. What is done for a part of the columns can be done
elsewhere (`f2l_fed.matrices`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from f2l_fed.matrices.blocks import blocks, parts
from f2l_fed.matrices.columns import Columns, as_columns
from f2l_fed.matrices.gram import GramMatrix, eigenvectors, gram_matrix
from f2l_fed.matrices.sketch import sketch
from f2l_fed.matrices.workspace import IN_MEMORY, Workspace
from f2l_fed.prior.ridge_fit import RidgeFit, shrinkage, without_group
from f2l_fed.prior.ridge_map import RidgeMap

_LEAST_RANK, _LOST = 32, 1e-3
"""Of a map whose rank is bounded: the least, and the share of the outputs' variance by which its
held-out predictions may be worse than those of the best rank."""

_SCORED = 2048
"""Examples by which strengths are compared, at most."""

_EXACT, _OUTPUTS, _MIXED = 1024, 192, 64
"""Examples up to which strengths are compared by all outputs; principal outputs, and mixtures of
the rest, by which they are where there are more."""

_NARROW = 2**16
"""Outputs up to which directions among them are small beside the examples."""


def fit_ridge(
    x: Tensor | Columns,
    y: Tensor | Columns,
    *,
    group: int = 1,
    centre: bool = True,
    standard_errors: float = 1.0,
    strengths: int = 25,
    rank: int | None = None,
    work: Workspace = IN_MEMORY,
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
        work: Where the map lies, and who works on parts of x and y.

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
    x, y = as_columns(x), as_columns(y)
    n, offset = x.shape[0], 1.0 if centre else 0.0
    of_x = gram_matrix(x, centre=centre, work=work)
    u, s, v = _thin_svd(x, of_x)
    few, y_mean = _as_far_apart(y, centre, work)
    seen = u.T @ few
    grid = _largest_square(s) * torch.logspace(-6, 2, strengths, dtype=torch.float64)
    rows = _scored(n, group)
    some, wanted = u[rows], few[rows]
    scores = torch.stack(
        [
            _group_errors(some, shrinkage(s, float(one)), seen, wanted, group, offset / n)
            for one in grid
        ]
    )
    mean = scores.mean(1)
    best = int(mean.argmin())
    # Of the mean over all groups, of which those scored are some.
    error = scores[best].std(correction=0) / (n / group) ** 0.5
    within = mean <= mean[best] + standard_errors * error
    strength = float(grid[int(within.nonzero().max())])
    kept = shrinkage(s, strength)
    mixture, left = u * kept, torch.eye(len(s), dtype=torch.float64)
    if rank is not None and len(s) > _LEAST_RANK:
        fitted = kept[:, None] * seen
        left_out = without_group(u, kept, seen, few, group, offset / n)
        left = fitted @ _principal_outputs(fitted, few, left_out)[:, :rank]
        left = left / left.norm(dim=0)
        mixture = mixture @ left
    left = left / s[:, None]
    return RidgeFit(
        map=RidgeMap(
            x_mean=of_x.mean.float(),
            y_mean=y_mean.float(),
            left=_left_factor(v, x, of_x.mean, u, s, left, work),
            right=_right_factor(y, y_mean, mixture, work),
        ),
        strength=strength,
        group=group,
        basis=u,
        singular=s,
        mixture=mixture,
        mean_weight=offset / n,
    )


def _group_errors(
    u: Tensor, kept: Tensor, seen: Tensor, y: Tensor, group: int, offset: float
) -> Tensor:
    """(number of groups,), the squared error of each by the fit without it."""
    errors = (y - without_group(u, kept, seen, y, group, offset)).square().sum(1)
    return errors.view(-1, group).sum(1)


def _scored(n: int, group: int) -> Tensor:
    """The examples by which strengths are compared: all, or some whole groups of many."""
    groups = torch.arange(n).view(-1, group)
    if n > _SCORED:
        chosen = torch.randperm(len(groups), generator=torch.Generator().manual_seed(0))
        groups = groups[chosen[: max(_SCORED // group, 2)]]
    return groups.flatten()


def _thin_svd(x: Columns, gram: GramMatrix) -> tuple[Tensor, Tensor, Tensor | None]:
    """U (n, r), s (r,), V (p, r) from the smaller Gram matrix; directions of no weight dropped.

    V is None where it is the larger one, see `_left_factor`.
    """
    n, p = x.shape
    values, vectors = eigenvectors(gram.matrix)
    s = values.sqrt()
    if gram.of_rows:
        return vectors, s, None
    along = vectors / s
    u = torch.cat([(x.block(some).double() - gram.mean) @ along for some in blocks(p, n)])
    return u, s, vectors


def _left_factor(
    v: Tensor | None,
    x: Columns,
    mean: Tensor,
    u: Tensor,
    s: Tensor,
    factor: Tensor,
    work: Workspace,
) -> Tensor:
    """(p, k) float32, the right singular vectors times an (r, k) factor."""
    if v is not None:
        return (v @ factor).float()
    product, mix = work.empty(x.shape[1], factor.shape[1]), u @ (factor / s[:, None])
    for _ in work.each(_write_left, parts(*x.shape), x, mean, mix, product):
        pass
    return product


def _write_left(part: slice, x: Columns, mean: Tensor, mix: Tensor, product: Tensor) -> None:
    for some in blocks(len(mix), part):
        product[some] = ((x.block(columns=some).double() - mean[some]).T @ mix).float()


def _right_factor(y: Columns, mean: Tensor, mixture: Tensor, work: Workspace) -> Tensor:
    """(k, q) float32, mixtures of the outputs less their mean."""
    right = work.empty(mixture.shape[1], y.shape[1])
    for _ in work.each(_write_right, parts(*y.shape), y, mean, mixture, right):
        pass
    return right


def _write_right(part: slice, y: Columns, mean: Tensor, mixture: Tensor, right: Tensor) -> None:
    for some in blocks(len(mixture), part):
        right[:, some] = (mixture.T @ (y.block(columns=some).double() - mean[some])).float()


def _as_far_apart(y: Columns, centre: bool, work: Workspace) -> tuple[Tensor, Tensor]:
    """(n, q) less their mean, as few outputs with which errors are as large, and that mean.

    Gram matrices are all that errors depend on: n outputs have the same. Of many examples the
    principal outputs, and random mixtures of the rest, have it nearly.
    """
    n, q = y.shape
    if n > _EXACT and _OUTPUTS + _MIXED < q <= _NARROW:
        return sketch(y, _OUTPUTS, _MIXED, centre=centre, work=work)
    if q <= n:
        whole = y.block().double()
        mean = whole.mean(0) if centre else torch.zeros_like(whole[0])
        return whole - mean, mean
    gram = gram_matrix(y, centre=centre, work=work)
    values, vectors = torch.linalg.eigh(gram.matrix)
    return vectors * values.clamp(min=0).sqrt(), gram.mean


def _principal_outputs(fitted: Tensor, few: Tensor, left_out: Tensor) -> Tensor:
    """(q, k), the principal directions of predictions that tell something of what was left out.

    Args:
        fitted: (r, q), predictions along the left singular vectors.
        few: (n, q), the outputs.
        left_out: (n, q), the prediction of each without its group.
    """
    directions = eigenvectors(fitted.T @ fitted)[1].flip(1)
    wanted, found = few @ directions, left_out @ directions
    saved = (2 * wanted * found - found.square()).sum(0).cumsum(0)
    enough = saved >= saved.max() - _LOST * float(few.square().sum())
    return directions[:, : max(int(enough.nonzero()[0]) + 1, _LEAST_RANK)]


def _largest_square(s: Tensor) -> float:
    return float(s.max()) ** 2 if len(s) else 1.0
