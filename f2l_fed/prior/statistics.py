"""Sufficient statistics of a ridge regression, so that what several centres know is added up.

A map depends on its examples through sums over them alone. Where features are few, as those of
heads are, the sums are small, however many the examples: each centre, or each shard of a zoo, takes
its own, and their sum gives the map that all examples together would have given. No record leaves
its centre. The strength is the one with which the sums of the others predict those left out best.

Reference:
    Chu et al.: Map-reduce for machine learning on multicore. NeurIPS 2006 (the summation form).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import reduce
from operator import add

import torch
from torch import Tensor

from f2l_fed.errors import UsageError
from f2l_fed.matrices.blocks import blocks, parts
from f2l_fed.matrices.columns import Columns, Stored, as_columns
from f2l_fed.matrices.gram import eigenvectors
from f2l_fed.matrices.workspace import IN_MEMORY, Workspace
from f2l_fed.prior.linear_prior import Prior
from f2l_fed.prior.ridge_map import RidgeMap
from f2l_fed.symmetry.common_part import CommonPart, rows_of
from f2l_fed.symmetry.output_permutation import OutputSymmetry


@dataclass(frozen=True, slots=True, kw_only=True)
class RidgeStatistics:
    """The sums over n examples, all in float64.

    Args:
        count: (1,), n.
        x: (p,), of the features.
        y: (q,), of the outputs.
        xx: (p, p), of the features' products.
        xy: (p, q), of their products with the outputs.
        yy: (1,), of the outputs' squares.
    """

    count: Tensor
    x: Tensor
    y: Tensor
    xx: Tensor
    xy: Tensor
    yy: Tensor

    @classmethod
    def of(
        cls, x: Tensor | Columns, y: Tensor | Columns, work: Workspace = IN_MEMORY
    ) -> RidgeStatistics:
        """The statistics of (n, p) features and (n, q) outputs, a part of the rows at a time."""
        x, y = as_columns(x), as_columns(y)
        some = parts(x.shape[1] + y.shape[1], x.shape[0])
        if not some:
            raise UsageError("there are no examples", expected="one or more", got="0")
        return reduce(add, work.each(_of_rows, some, x, y))

    def __add__(self, other: RidgeStatistics) -> RidgeStatistics:
        """The statistics of both."""
        return self._combined(other, 1.0)

    def __sub__(self, other: RidgeStatistics) -> RidgeStatistics:
        """The statistics without the other's examples."""
        return self._combined(other, -1.0)

    def _combined(self, other: RidgeStatistics, sign: float) -> RidgeStatistics:
        return RidgeStatistics(
            **{
                field.name: getattr(self, field.name) + sign * getattr(other, field.name)
                for field in fields(self)
            }
        )

    def map(self, strength: float, *, centre: bool = True) -> RidgeMap:
        """The map of a strength λ, as `f2l_fed.prior.ridge.fit_ridge` finds it."""
        x_mean, y_mean, xx, xy = self._centred(centre)
        values, vectors = eigenvectors(xx)
        return RidgeMap(
            x_mean=x_mean.float(),
            y_mean=y_mean.float(),
            left=(vectors / (values + strength)).float(),
            right=(vectors.T @ xy).float(),
        )

    def error(self, fitted: RidgeMap) -> float:
        """The sum of the squared errors of a map for these examples."""
        slope = fitted.left.double() @ fitted.right.double()
        offset = fitted.y_mean.double() - fitted.x_mean.double() @ slope
        found = (slope * (self.xx @ slope)).sum() + self.count[0] * offset.square().sum()
        found += 2 * (self.x @ slope) @ offset
        wanted = (slope * self.xy).sum() + offset @ self.y
        return float(self.yy[0] - 2 * wanted + found)

    def _centred(self, centre: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if not centre:
            return torch.zeros_like(self.x), torch.zeros_like(self.y), self.xx, self.xy
        x_mean, y_mean = self.x / self.count, self.y / self.count
        return (
            x_mean,
            y_mean,
            self.xx - torch.outer(self.x, x_mean),
            self.xy - torch.outer(self.x, y_mean),
        )


def _of_rows(part: slice, x: Columns, y: Columns) -> RidgeStatistics:
    found: RidgeStatistics | None = None
    for some in blocks(x.shape[1] + y.shape[1], part):
        features, outputs = x.block(some).double(), y.block(some).double()
        own = RidgeStatistics(
            count=torch.tensor([float(len(features))], dtype=torch.float64),
            x=features.sum(0),
            y=outputs.sum(0),
            xx=features.T @ features,
            xy=features.T @ outputs,
            yy=outputs.square().sum()[None],
        )
        found = own if found is None else found + own
    assert found is not None
    return found


def fit_statistics(
    shards: Sequence[RidgeStatistics], *, centre: bool = True, strengths: int = 25
) -> tuple[RidgeMap, float]:
    """The map of all shards' examples, and its strength.

    Args:
        shards: Of two or more centres, or parts of a zoo, none of whose sites are in two.
        centre: Fit an unpenalised intercept.
        strengths: As in `f2l_fed.prior.ridge.fit_ridge`.

    Raises:
        UsageError: If there are fewer than two shards, between which nothing can be compared.
    """
    if len(shards) < 2:
        raise UsageError("a shard must be left out", expected="2 or more", got=str(len(shards)))
    total = reduce(add, shards)
    values = eigenvectors(total._centred(centre)[2])[0]
    largest = float(values[-1]) if len(values) else 1.0
    grid = (largest * torch.logspace(-6, 2, strengths, dtype=torch.float64)).tolist()
    errors = [
        sum(own.error((total - own).map(strength, centre=centre)) for own in shards)
        for strength in grid
    ]
    strength = grid[errors.index(min(errors))]
    return total.map(strength, centre=centre), strength


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorStatistics:
    """The statistics of a prior of heads: of mean rows, and of rows' deviations from them.

    Args:
        common: Of the common part.
        rows: Of the rows.
    """

    common: RidgeStatistics
    rows: RidgeStatistics

    @classmethod
    def of(
        cls, contexts: Tensor, weights: Tensor, symmetry: OutputSymmetry, anchor: Tensor
    ) -> PriorStatistics:
        """The statistics of (n, E, D) contexts and weights around a (D,) anchor.

        Raises:
            UsageError: If the symmetry has no output rows, as where labels are shared.
        """
        if not symmetry.classes:
            raise UsageError("there are no output rows to add up", where="symmetry")
        x = Stored(contexts.flatten(0, 1))
        y = Stored(weights.flatten(0, 1), x.matrix, anchor)
        return cls(
            common=RidgeStatistics.of(CommonPart(x, symmetry), CommonPart(y, symmetry)),
            rows=RidgeStatistics.of(
                rows_of(x, symmetry).flatten(0, 1), rows_of(y, symmetry).flatten(0, 1)
            ),
        )


def fit_prior_statistics(
    shards: Sequence[PriorStatistics], symmetry: OutputSymmetry, anchor: Tensor
) -> Prior:
    """The prior of all shards' records, without a gate, which needs records.

    Args:
        shards: As in `fit_statistics`.
        symmetry: Coordinates of the prior.
        anchor: (D,) float32, where the contexts start.
    """
    common, _ = fit_statistics([shard.common for shard in shards])
    rows, _ = fit_statistics([shard.rows for shard in shards], centre=False)
    return Prior(symmetry=symmetry, anchor=anchor, common=common, rows=rows)
