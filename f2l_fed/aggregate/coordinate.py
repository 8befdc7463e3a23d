"""Rules that treat every coordinate alone: median and trimmed mean.

Law: while the liars are few enough, every coordinate of the result lies between the least and
the greatest honest value of that coordinate. Coordinates don't interact, so blocks of columns
may be reduced anywhere and laid side by side; the result is the same to the last bit.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from f2l_fed.aggregate.aggregator import Aggregator, collecting, require_minority
from f2l_fed.aggregate.rows import BLOCK, Rows
from f2l_fed.errors import AdmissionError

# Weights such as 0.1 don't add up exactly; halves that differ by less than this are halves.
_SLACK = 1e-12


def median(byzantine: int) -> Aggregator[Rows]:
    """The weighted median of every coordinate.

    Args:
        byzantine: Number of updates that may be lies; they must weigh less than the others.
    """
    return collecting(partial(coordinate_median, byzantine=byzantine))


def trimmed_mean(byzantine: int) -> Aggregator[Rows]:
    """The weighted mean of what is left of every coordinate without its extremes.

    Args:
        byzantine: Number of updates that may be lies, and of values dropped at either end.
    """
    return collecting(partial(coordinate_trimmed_mean, byzantine=byzantine))


def coordinate_median(rows: Rows, *, byzantine: int = 0, block: int = BLOCK) -> Tensor:
    """See `median`; (D,) float64, with memory for ``block`` columns at a time."""
    require_minority(rows, byzantine)
    return torch.cat([weighted_median(part, rows.weights) for part in rows.blocks(block)])


def coordinate_trimmed_mean(rows: Rows, *, byzantine: int, block: int = BLOCK) -> Tensor:
    """See `trimmed_mean`; (D,) float64, with memory for ``block`` columns at a time.

    Raises:
        AdmissionError: If nothing would be left.

    Reference:
        Yin et al.: Byzantine-robust distributed learning, ICML 2018, definition 2.
    """
    if len(rows) <= 2 * byzantine:
        raise AdmissionError(
            f"too few updates to trim {byzantine} at either end",
            expected=f"{2 * byzantine + 1} or more",
            got=str(len(rows)),
            remedy="Wait for more sites or tolerate fewer liars.",
        )
    # Equal values are told apart by weight, or the result would depend on the rows' order.
    by_weight = rows.weights.argsort()
    weights, kept = rows.weights[by_weight], slice(byzantine, len(rows) - byzantine)

    def trimmed(values: Tensor) -> Tensor:
        ordered, order = values[by_weight].sort(dim=0, stable=True)
        return (ordered[kept] * weights[order[kept]]).sum(0) / weights[order[kept]].sum(0)

    return torch.cat([trimmed(part) for part in rows.blocks(block)])


def weighted_median(values: Tensor, weights: Tensor) -> Tensor:
    """The value with half of the weight on either side; midway where a range of values has.

    Args:
        values: (n, b) float64.
        weights: (n,) float64, positive; an integer weight counts as that many equal rows.

    Returns:
        (b,) float64.

    >>> values = torch.tensor([[3.0], [1.0], [2.0], [9.0]], dtype=torch.float64)
    >>> weighted_median(values, torch.ones(4, dtype=torch.float64)).item()
    2.5
    >>> weighted_median(values, torch.tensor([1.0, 1, 1, 4], dtype=torch.float64)).item()
    9.0
    """
    ordered, order = values.sort(dim=0)
    below = weights[order].cumsum(dim=0) / weights.sum()
    lower = (below < 0.5 - _SLACK).sum(dim=0, keepdim=True)
    upper = (below <= 0.5 + _SLACK).sum(dim=0, keepdim=True)
    return (ordered.gather(0, lower) + ordered.gather(0, upper)).squeeze(0) / 2
