"""Flower's own strategies on plain matrices, to compare our aggregators with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray


def replies(
    rows: NDArray[np.float32], examples: Sequence[float], *, cuts: Sequence[int] = ()
) -> list[Message]:
    """One training reply for each row, cut into arrays at these places."""
    # A Message reads its sender from here, which in a real run the runtime has set.
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1
    return [
        Message(
            content=RecordDict(
                {
                    "arrays": ArrayRecord(
                        {
                            f"layer-{index}": Array(part)
                            for index, part in enumerate(np.split(row, cuts))
                        }
                    ),
                    "metrics": MetricRecord({"num-examples": float(count)}),
                }
            ),
            dst_node_id=1,
            message_type="train",
        )
        for row, count in zip(rows, examples, strict=True)
    ]


def flower_aggregate(strategy: FedAvg, messages: list[Message]) -> NDArray[np.float32]:
    """What a strategy makes of the replies, as one vector."""
    arrays, _ = strategy.aggregate_train(1, messages)
    assert arrays is not None
    return np.concatenate([array.ravel() for array in arrays.to_numpy_ndarrays()])
