"""Reducers of many updates to one, from the plain mean to rules robust to Byzantine sites."""

from typing import TYPE_CHECKING

from f2l_fed.core.lazy_exports import lazy_exports

__all__ = ["AGGREGATORS", "Aggregator", "Updates", "aggregate"]

if TYPE_CHECKING:
    from f2l_fed.aggregate.aggregator import Aggregator
    from f2l_fed.aggregate.registry import AGGREGATORS, aggregate
    from f2l_fed.aggregate.updates import Updates
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "f2l_fed.aggregate.aggregator": ["Aggregator"],
            "f2l_fed.aggregate.registry": ["AGGREGATORS", "aggregate"],
            "f2l_fed.aggregate.updates": ["Updates"],
        },
    )
