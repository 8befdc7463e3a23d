"""The weighted median of every coordinate.

Law: while Byzantine sites hold less than half of the weight, every coordinate of the result lies
between the least and the greatest honest value of that coordinate. Coordinates don't interact, so
blocks of columns may be reduced anywhere and laid side by side; the result is the same to the last
bit.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from f2l_fed.aggregate.aggregator import Aggregator, collecting, require_minority
from f2l_fed.aggregate.updates import BLOCK, Updates

# Weights such as 0.1 don't add up exactly; halves that differ by less than this are halves.
_TOLERANCE = 1e-12


def median(byzantine: int) -> Aggregator[Updates]:
    """The weighted median of every coordinate; midway where a range of values has half on either
    side.

    Args:
        byzantine: Number of Byzantine updates to tolerate; they must weigh less than the others.
    """
    return collecting(partial(coordinate_median, byzantine=byzantine))


def coordinate_median(rows: Updates, *, byzantine: int = 0, block: int = BLOCK) -> Tensor:
    """See `median`; (D,) float64, with memory for ``block`` columns at a time."""
    require_minority(rows, byzantine)
    return rows.reduce(partial(weighted_median, weights=rows.weights), block)


def weighted_median(values: Tensor, weights: Tensor) -> Tensor:
    """The value with half of the weight on either side; midway where a range of values has.

    Args:
        values: (n, b) float32 or float64.
        weights: (n,) float64, positive; an integer weight counts as that many equal rows.

    Returns:
        (b,) float64.

    >>> values = torch.tensor([[3.0], [1.0], [2.0], [9.0]])
    >>> weighted_median(values, torch.ones(4, dtype=torch.float64)).item()
    2.5
    >>> weighted_median(values, torch.tensor([1.0, 1, 1, 4], dtype=torch.float64)).item()
    9.0
    """
    if same(weights):
        ordered = sorted_columns(values)
        middle = ordered[:, (len(values) - 1) // 2].double() + ordered[:, len(values) // 2]
        return middle / 2
    ordered, order = values.double().sort(dim=0)
    below = weights[order].cumsum(dim=0) / weights.sum()
    lower = (below < 0.5 - _TOLERANCE).sum(dim=0, keepdim=True)
    upper = (below <= 0.5 + _TOLERANCE).sum(dim=0, keepdim=True)
    return (ordered.gather(0, lower) + ordered.gather(0, upper)).squeeze(0) / 2


def same(weights: Tensor) -> bool:
    """Whether all weights are equal, so that values alone decide."""
    return bool((weights == weights[0]).all())


def sorted_columns(values: Tensor) -> Tensor:
    """(n, b) numbers to (b, n), every column in ascending order as a row."""
    # numpy sorts short rows with vector instructions, several times faster than torch.
    return torch.from_numpy(np.sort(values.numpy().T, axis=1))
