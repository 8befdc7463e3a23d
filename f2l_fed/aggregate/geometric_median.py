"""The geometric median: the point with the least sum of distances to the updates.

Law: it is a convex combination of the updates, moves along when all are moved together, and
Byzantine sites must hold half of the weight to carry it away.
"""

from __future__ import annotations

import torch
from torch import Tensor

from f2l_fed.aggregate.aggregator import Aggregator, collecting, require_minority
from f2l_fed.aggregate.gram import TIE, gram_matrix, squared_distances
from f2l_fed.aggregate.updates import Updates


def geometric_median(byzantine: int) -> Aggregator[Updates]:
    """The point with the least weighted sum of distances to the updates.

    If Byzantine sites hold a share a < 1/2 of the weight and the honest updates lie in a ball of
    radius r, it is at most r (1 - a) / sqrt(1 - 2 a) from the ball's centre.

    Args:
        byzantine: Number of Byzantine updates to tolerate; they must weigh less than the others.

    Reference:
        Minsker: Geometric median and robust estimation in Banach spaces. Bernoulli 21, 2015,
        lemma 2.1.
    """

    def rule(rows: Updates) -> Tensor:
        require_minority(rows, byzantine)
        return rows.combine(weiszfeld(gram_matrix(rows), rows.weights))

    return collecting(rule)


def weiszfeld(
    gram: Tensor, weights: Tensor, *, tolerance: float = 1e-7, limit: int = 1000
) -> Tensor:
    """Coefficients of the geometric median, found without leaving the n x n inner products.

    Starts at the best of the updates; from there Weiszfeld's iteration, with Vardi and Zhang's
    step away from an update, can neither be caught by one nor be drawn off by a far one.

    Args:
        gram: (n, n) float64.
        weights: (n,) float64, positive.
        tolerance: Gradient of the mean distance at which to stop; it has no unit.
        limit: Largest number of steps.

    Returns:
        (n,) float64, sum 1.

    Reference:
        Vardi, Zhang: The multivariate L1-median and associated data depth. PNAS 97, 2000,
        equations 2.3 to 2.6.
    """
    weights = weights / weights.sum()
    sums = squared_distances(gram).sqrt() @ weights
    best = weights * (sums <= sums.min() * (1 + TIE))
    c = best / best.sum()
    to_start = gram @ c
    # Nearer than this, in squares, rounding of the inner products can't tell two points apart.
    blur = 1e-14 * (gram.diagonal() + c @ to_start)
    # Seen from the start, Byzantine updates of any size leave the honest updates' digits intact.
    gram = gram - to_start[:, None] - to_start + c @ to_start
    squares = gram.diagonal()
    for _ in range(limit):
        products = gram @ c
        distances = squares - 2 * products + c @ products
        here = distances <= blur
        pulls = torch.where(here, 0.0, weights / torch.where(here, 1.0, distances).sqrt())
        if here.all():
            break
        step = pulls / pulls.sum() - c
        force = float(pulls.sum() * (step @ gram @ step).clamp(min=0).sqrt())
        hold = float(weights[here].sum())
        if force <= hold + tolerance:
            break
        c = c + (1 - hold / force) * step
    return c
