"""The weighted mean of every coordinate without its extremes.

Law: with f values dropped at either end and at most f Byzantine updates, every coordinate of the
result lies between the least and the greatest honest value of that coordinate. It needs n > 2 f.
Coordinates don't interact, so blocks of columns may be reduced anywhere and laid side by side.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from f2l_fed.aggregate.aggregator import Aggregator, collecting
from f2l_fed.aggregate.median import same, sorted_columns
from f2l_fed.aggregate.updates import BLOCK, Updates
from f2l_fed.errors import AdmissionError


def trimmed_mean(byzantine: int) -> Aggregator[Updates]:
    """The weighted mean of every coordinate without its extremes.

    Args:
        byzantine: Number of Byzantine updates to tolerate, and of values dropped at either end.
    """
    return collecting(partial(coordinate_trimmed_mean, byzantine=byzantine))


def coordinate_trimmed_mean(rows: Updates, *, byzantine: int, block: int = BLOCK) -> Tensor:
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
            remedy="Wait for more sites or tolerate fewer Byzantine sites.",
        )
    kept = slice(byzantine, len(rows) - byzantine)
    if same(rows.weights):
        return rows.reduce(lambda part: sorted_columns(part)[:, kept].double().mean(1), block)
    # Equal values are told apart by weight, or the result would depend on the rows' order.
    by_weight = rows.weights.argsort()
    weights = rows.weights[by_weight]

    def trimmed(values: Tensor) -> Tensor:
        ordered, order = values[by_weight].double().sort(dim=0, stable=True)
        return (ordered[kept] * weights[order[kept]]).sum(0) / weights[order[kept]].sum(0)

    return rows.reduce(trimmed, block)
