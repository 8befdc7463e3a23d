"""The registry of aggregators; another one takes a file with a factory and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from f2l_fed.core.lazy_registry import LazyRegistry
from f2l_fed.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from f2l_fed.aggregate.aggregator import Aggregator

AGGREGATORS: Mapping[str, Callable[[int], Aggregator[Any]]] = LazyRegistry(
    {
        "mean": "f2l_fed.aggregate.mean:mean",
        "clipped_mean": "f2l_fed.aggregate.clipped_mean:median_clipped_mean",
        "median": "f2l_fed.aggregate.median:median",
        "trimmed_mean": "f2l_fed.aggregate.trimmed_mean:trimmed_mean",
        "multi_krum": "f2l_fed.aggregate.multi_krum:multi_krum",
        "geometric_median": "f2l_fed.aggregate.geometric_median:geometric_median",
    }
)
"""Factories of aggregators by name; each takes the number of Byzantine updates to tolerate."""


def aggregate(name: str, rows: Tensor, weights: Tensor, *, byzantine: int = 0) -> Tensor:
    """Reduces updates to one.

    Args:
        name: One of `AGGREGATORS`.
        rows: (n, D) float32, updates of one lineage.
        weights: (n,), positive.
        byzantine: Number of Byzantine updates to tolerate.

    Returns:
        (D,) float32.

    Raises:
        UsageError: If the name is unknown, or shapes or ``byzantine`` are invalid.
        AdmissionError: If these updates can't be aggregated, or not with so many Byzantine ones.

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
