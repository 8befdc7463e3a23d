"""The mean of clipped updates: none is left out, and none can move it far.

Law: with x' = x min(1, c / |x|), clipped_mean(x) = sum w_i x'_i / sum w_i. Sites that hold a
share a of the weight move it by at most 2 a c, whatever they send.
"""

from __future__ import annotations

import torch
from torch import Tensor

from f2l_fed.aggregate.aggregator import Aggregator, collecting, require_minority
from f2l_fed.aggregate.mean import MEAN, Sum
from f2l_fed.aggregate.median import weighted_median
from f2l_fed.aggregate.updates import Updates
from f2l_fed.errors import UsageError


def clipped_mean(max_norm: float) -> Aggregator[Sum]:
    """The mean of updates clipped to a length known beforehand; its state is a running sum.

    No configuration offers it, because the length differs from federation to federation;
    `median_clipped_mean` finds it.

    Args:
        max_norm: c, Euclidean length above which an update is scaled down to it.

    Raises:
        UsageError: If the length isn't positive.
    """
    if not max_norm > 0:
        raise UsageError("max_norm is not positive", expected="> 0", got=str(max_norm))

    def accumulate(state: Sum, rows: Tensor, weights: Tensor) -> Sum:
        given = Updates.of(len(state.total), rows, weights)
        coefficients = given.weights * shrinkage(norms(given), max_norm)
        return Sum(
            total=given.combine(coefficients, state.total),
            weight=state.weight + float(given.weights.sum()),
        )

    return Aggregator(
        init=MEAN.init, accumulate=accumulate, merge=MEAN.merge, finalise=MEAN.finalise
    )


def median_clipped_mean(byzantine: int) -> Aggregator[Updates]:
    """The mean of updates clipped to the weighted median of their own lengths.

    While Byzantine sites hold less than half of the weight, that length lies between two honest
    ones.

    Args:
        byzantine: Number of Byzantine updates to tolerate.
    """

    def rule(rows: Updates) -> Tensor:
        require_minority(rows, byzantine)
        lengths = norms(rows)
        bound = float(weighted_median(lengths[:, None], rows.weights))
        coefficients = rows.weights * shrinkage(lengths, bound)
        return rows.combine(coefficients / rows.weights.sum())

    return collecting(rule)


def norms(rows: Updates) -> Tensor:
    """Euclidean length of every update, (n,) float64."""
    squares = torch.zeros(len(rows), dtype=torch.float64)
    for block in rows.blocks():
        squares += block.double().square().sum(dim=1)
    return squares.sqrt()


def shrinkage(lengths: Tensor, max_norm: float) -> Tensor:
    """The factors that bring lengths down to ``max_norm`` and leave shorter ones alone.

    >>> shrinkage(torch.tensor([0.0, 1.0, 4.0]), 2.0).tolist()
    [1.0, 1.0, 0.5]
    """
    return torch.where(lengths > max_norm, max_norm / lengths, torch.ones_like(lengths))
