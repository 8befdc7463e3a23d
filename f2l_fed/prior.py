"""The prior: the expected network of a site, given its probe.

A ridge regression from probe to weights in the coordinates of the output symmetry. Its
intercept is the mean of the zoo's networks, that is federated averaging; everything the context
adds comes on top of that.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.ridge import RidgeMap, fit_ridge
from f2l_fed.symmetry import OutputSymmetry, Parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """p(c), the conditional mean of the weights.

    Args:
        common: Map of the common part, (C,) -> (C,).
        rows: Map of every output row's deviation, (R,) -> (R,); of size 0 without symmetry.
    """

    common: RidgeMap
    rows: RidgeMap

    def __call__(self, context: Parts) -> Parts:
        """The expected parts for a batch of contexts."""
        return Parts(self.common(context.common), self.rows(context.rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorFit:
    """A fitted prior with its predictions for the records it was fitted on.

    Args:
        prior: The prior.
        held_out: For each record, the prediction without that record.
    """

    prior: Prior
    held_out: Parts


def fit_prior(contexts: Tensor, weights: Tensor, symmetry: OutputSymmetry) -> PriorFit:
    """Fits the prior on one record per site.

    Args:
        contexts: (n, D) float32, probe updates.
        weights: (n, D) float32.
        symmetry: Coordinates to fit in.
    """
    x, y = symmetry.split(contexts), symmetry.split(weights)
    # One standard error: where the score is flat, hidden layers that are a little too detailed cost
    # far more accuracy than ones that are a little too plain. Output rows show no such bias.
    common = fit_ridge(x.common, y.common, standard_errors=1)
    held_out, rows = y.rows, _no_rows()
    if symmetry.classes:
        # The mean row of a permutation-invariant fit is zero, so there is no intercept.
        fit = fit_ridge(
            x.rows.flatten(0, 1),
            y.rows.flatten(0, 1),
            group=symmetry.classes,
            centre=False,
            standard_errors=0,
        )
        held_out, rows = fit.held_out.view_as(y.rows), fit.map
    return PriorFit(
        prior=Prior(common=common.map, rows=rows),
        held_out=Parts(common.held_out, held_out),
    )


def _no_rows() -> RidgeMap:
    empty = torch.zeros(0)
    return RidgeMap(x_mean=empty, y_mean=empty, left=torch.zeros(0, 0), right=torch.zeros(0, 0))
