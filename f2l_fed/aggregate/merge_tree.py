"""A merge of states from many workers, in an order that no worker decides.

The server aggregates in one process; this is for aggregation in shards, which the laws in
`f2l_fed.aggregate.aggregator` allow and the tests check.

Law: the result depends on the keys and states alone, to the last bit: not on their order of
arrival, nor on the worker that merged them. Sums of floats depend on the order of their terms, so
there must be one order, that of the keys; and one shape, the balanced tree, whose rounding grows
with log n.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from f2l_fed.aggregate.aggregator import Aggregator, no_updates

State = TypeVar("State")


def merge_tree(rule: Aggregator[State], states: Mapping[str, State]) -> State:
    """Merges the states of shards in a balanced tree over their sorted keys.

    Args:
        rule: The aggregator of the states.
        states: States by a key that names the shard, for example its sha256; at least one.

    Raises:
        AdmissionError: If there is none.

    >>> import torch
    >>> from f2l_fed.aggregate.mean import MEAN
    >>> one = torch.ones(1)
    >>> shards = {k: MEAN.accumulate(MEAN.init(1), v * one[None], one) for k, v in
    ...           {"b": 3.0, "a": 1.0, "c": 5.0}.items()}
    >>> MEAN.finalise(merge_tree(MEAN, shards)).item()
    3.0
    """
    if not states:
        raise no_updates()
    level = [states[key] for key in sorted(states)]
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        odd = level[-1:] if len(level) % 2 else []
        level = [rule.merge(a, b) for a, b in pairs] + odd
    return level[0]
