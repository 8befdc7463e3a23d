"""The aggregators by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor

from f2l_fed.aggregate.aggregator import Aggregator
from f2l_fed.aggregate.clipped_mean import median_clipped_mean
from f2l_fed.aggregate.geometric_median import geometric_median
from f2l_fed.aggregate.mean import MEAN, Sum
from f2l_fed.aggregate.median import median
from f2l_fed.aggregate.multi_krum import multi_krum
from f2l_fed.aggregate.trimmed_mean import trimmed_mean
from f2l_fed.errors import UsageError


def _mean(byzantine: int) -> Aggregator[Sum]:
    if byzantine:
        raise UsageError(
            "the mean stands no liar at all",
            where="byzantine",
            expected="0",
            got=str(byzantine),
            remedy="Choose a robust rule, for example geometric_median.",
        )
    return MEAN


AGGREGATORS: Mapping[str, Callable[[int], Aggregator[Any]]] = MappingProxyType(
    {
        "mean": _mean,
        "clipped_mean": median_clipped_mean,
        "median": median,
        "trimmed_mean": trimmed_mean,
        "multi_krum": multi_krum,
        "geometric_median": geometric_median,
    }
)


def aggregate(name: str, rows: Tensor, weights: Tensor, *, byzantine: int = 0) -> Tensor:
    """Reduces updates to one.

    Args:
        name: One of `AGGREGATORS`.
        rows: (n, D) float32, updates of one lineage.
        weights: (n,), positive.
        byzantine: Number of updates that may be lies.

    Returns:
        (D,) float32.

    Raises:
        UsageError: If the name is unknown, or shapes or the number of liars make no sense.
        AdmissionError: If these updates can't be aggregated, or can't be against that many lies.

    >>> import torch
    >>> rows = torch.tensor([[1.0], [2.0], [3.0], [4.0], [1e9]])
    >>> aggregate("median", rows, torch.ones(5), byzantine=1).item()
    3.0
    """
    if name not in AGGREGATORS:
        raise UsageError("unknown aggregator", expected=", ".join(AGGREGATORS), got=name)
    if byzantine < 0:
        raise UsageError("byzantine is negative", expected="0 or more", got=str(byzantine))
    rule = AGGREGATORS[name](byzantine)
    return rule.finalise(rule.accumulate(rule.init(rows.shape[-1]), rows, weights))
