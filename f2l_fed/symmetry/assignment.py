"""The linear assignment problem for tensors, solved by scipy."""

from __future__ import annotations

import torch
from torch import Tensor


def assignment(costs: Tensor, *, maximize: bool = False) -> Tensor:
    """The assignment of columns to rows with the smallest total cost.

    Args:
        costs: (n, n) float64.
        maximize: Whether the costs are gains.

    Returns:
        (n,) int64, the column of each row; a permutation.

    >>> assignment(torch.tensor([[4.0, 1.0], [2.0, 3.0]])).tolist()
    [1, 0]
    """
    # A second of imports, which most commands and many a site's task can do without.
    from scipy.optimize import linear_sum_assignment

    return torch.from_numpy(linear_sum_assignment(costs.numpy(), maximize=maximize)[1])
