"""Rules that see updates only through their inner products: Multi-Krum and geometric median.

Law: the Gram matrix of all columns is the sum of those of blocks of columns, so workers need
never see whole updates; the rule itself works on n x n numbers and ends with one coefficient
for each update. The result is a convex combination of updates, and moving all updates together
moves it along.
"""

from __future__ import annotations

import torch
from torch import Tensor

from f2l_fed.aggregate.aggregator import Aggregator, collecting, require_minority
from f2l_fed.aggregate.rows import BLOCK, Rows
from f2l_fed.errors import AdmissionError

# Inner products carry rounding, so what differs by less than this share is a tie.
_TIE = 1e-9


def multi_krum(byzantine: int) -> Aggregator[Rows]:
    """The weighted mean of the updates that `krum_selection` keeps.

    Args:
        byzantine: Number of updates that may be lies.
    """

    def rule(rows: Rows) -> Tensor:
        weights = rows.weights * krum_selection(gram_matrix(rows), byzantine)
        return rows.combine(weights / weights.sum())

    return collecting(rule)


def geometric_median(byzantine: int) -> Aggregator[Rows]:
    """The point with the least weighted sum of distances to the updates.

    If liars hold a share a < 1/2 of the weight and the honest updates lie in a ball of radius r,
    it is at most r (1 - a) / sqrt(1 - 2 a) from the ball's centre.

    Args:
        byzantine: Number of updates that may be lies; they must weigh less than the others.

    Reference:
        Minsker: Geometric median and robust estimation in Banach spaces. Bernoulli 21, 2015,
        lemma 2.1.
    """

    def rule(rows: Rows) -> Tensor:
        require_minority(rows, byzantine)
        return rows.combine(weiszfeld(gram_matrix(rows), rows.weights))

    return collecting(rule)


def gram_matrix(rows: Rows, *, block: int = BLOCK) -> Tensor:
    """Inner products of the updates, (n, n) float64, with memory for a block of columns."""
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for part in rows.blocks(block):
        gram += part @ part.T
    return gram


def squared_distances(gram: Tensor) -> Tensor:
    """(n, n) squared Euclidean distances from inner products.

    >>> squared_distances(torch.tensor([[9.0, 12.0], [12.0, 16.0]])).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    squares = gram.diagonal()
    return (squares[:, None] + squares - gram - gram.T).clamp(min=0).fill_diagonal_(0)


def krum_selection(gram: Tensor, byzantine: int) -> Tensor:
    """The n - f - 2 updates with the nearest neighbours, and what ties with the last of them.

    A score is the sum of squared distances to the n - f - 2 nearest others; liars far from all
    honest updates can't have a small one.

    Args:
        gram: (n, n) float64.
        byzantine: f, number of updates that may be lies.

    Returns:
        (n,) bool.

    Raises:
        AdmissionError: If n < 2 f + 3.

    Reference:
        Blanchard et al.: Machine learning with adversaries, NeurIPS 2017, sections 4 and 5.
    """
    n, near = len(gram), len(gram) - byzantine - 2
    if n < 2 * byzantine + 3:
        raise AdmissionError(
            f"too few updates for Multi-Krum against {byzantine} liars",
            expected=f"{2 * byzantine + 3} or more",
            got=str(n),
            remedy="Wait for more sites or tolerate fewer liars.",
        )
    others = squared_distances(gram).fill_diagonal_(torch.inf)
    scores = others.sort(dim=1).values[:, :near].sum(dim=1)
    return scores <= scores.sort().values[near - 1] * (1 + _TIE)


def weiszfeld(
    gram: Tensor, weights: Tensor, *, tolerance: float = 1e-7, limit: int = 1000
) -> Tensor:
    """Coefficients of the geometric median, found without leaving the n x n inner products.

    Starts at the best of the updates; from there Weiszfeld's iteration, with Vardi and Zhang's
    step away from an update, can neither be caught by one nor be drawn off by a far lie.

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
    best = weights * (sums <= sums.min() * (1 + _TIE))
    c = best / best.sum()
    to_start = gram @ c
    # Nearer than this, in squares, rounding of the inner products can't tell two points apart.
    blur = 1e-14 * (gram.diagonal() + c @ to_start)
    # Seen from the start, lies of any size leave the honest updates' digits intact.
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
