"""The weighted mean: federated averaging.

Law: mean(x) = sum w_i x_i / sum w_i. One update alone can move it anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.aggregate.aggregator import Aggregator, no_updates
from f2l_fed.aggregate.updates import Updates
from f2l_fed.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """A running sum of updates.

    Args:
        total: (D,) float64, sum of weight times update; in float64 because float32 loses the
            small updates once many are in.
        weight: Sum of the weights.
    """

    total: Tensor
    weight: float


def _init(size: int) -> Sum:
    return Sum(total=torch.zeros(size, dtype=torch.float64), weight=0.0)


def _accumulate(state: Sum, rows: Tensor, weights: Tensor) -> Sum:
    given = Updates.of(len(state.total), rows, weights)
    return Sum(
        total=given.combine(given.weights, state.total),
        weight=state.weight + float(given.weights.sum()),
    )


def _merge(a: Sum, b: Sum) -> Sum:
    return Sum(total=a.total + b.total, weight=a.weight + b.weight)


def _finalise(state: Sum) -> Tensor:
    if not state.weight:
        raise no_updates()
    return torch.div(state.total, state.weight, out=torch.empty(len(state.total)))


MEAN = Aggregator(init=_init, accumulate=_accumulate, merge=_merge, finalise=_finalise)
"""The weighted mean; its state is a running sum."""


def mean(byzantine: int) -> Aggregator[Sum]:
    """`MEAN`, which tolerates no Byzantine update.

    Args:
        byzantine: Must be 0.

    Raises:
        UsageError: If it is not.
    """
    if byzantine:
        raise UsageError(
            "the mean tolerates no Byzantine update",
            where="byzantine",
            expected="0",
            got=str(byzantine),
            remedy="Choose a robust rule, for example geometric_median.",
        )
    return MEAN
