"""Aggregators: four functions around a state that can be sent and stored.

Laws, for states a, b, c of one aggregator and updates x, y:
    merge(init, a) = a = merge(a, init)
    merge(merge(a, b), c) = merge(a, merge(b, c))
    accumulate(a, x + y) = merge(accumulate(a, x), accumulate(init, y))
    finalise does not depend on the order of the updates.
All of them hold up to rounding in float64. So a cluster may cut the updates into shards, reduce
the shards wherever they lie, and merge the states in any tree;
`f2l_fed.aggregate.merge_tree.merge_tree` gives the same bits every time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

from f2l_fed.aggregate.updates import Updates
from f2l_fed.errors import AdmissionError

State = TypeVar("State")


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregator(Generic[State]):
    """A rule that reduces updates to one.

    Args:
        init: D to the state of no updates.
        accumulate: State, updates (m, D) float32 and weights (m,) to the state with them. The old
            state must not be used again: a running sum goes on in the same memory.
        merge: Two states to the state of the updates of both.
        finalise: State to the aggregate, (D,) float32.

    Raises:
        UsageError: ``accumulate``, if updates or weights have other shapes.
        AdmissionError: ``accumulate``, if numbers are not finite or weights not positive;
            ``finalise``, without updates or with too few for the rule.
    """

    init: Callable[[int], State]
    accumulate: Callable[[State, Tensor, Tensor], State]
    merge: Callable[[State, State], State]
    finalise: Callable[[State], Tensor]


def collecting(rule: Callable[[Updates], Tensor]) -> Aggregator[Updates]:
    """The aggregator of a rule that must see all updates at once: its state is the updates.

    Args:
        rule: Maps at least one update to (D,) float64.
    """

    def finalise(rows: Updates) -> Tensor:
        if not len(rows):
            raise no_updates()
        return rule(rows).float()

    return Aggregator(
        init=Updates.none,
        accumulate=lambda state, rows, weights: state + Updates.of(state.size, rows, weights),
        merge=lambda a, b: a + b,
        finalise=finalise,
    )


def no_updates() -> AdmissionError:
    """The error of an aggregate without updates."""
    return AdmissionError(
        "there are no updates to aggregate",
        expected="1 or more",
        got="0",
        remedy="Wait for a site to answer.",
    )


def require_minority(rows: Updates, byzantine: int) -> None:
    """Requires that no ``byzantine`` of the rows weigh half of all or more.

    Raises:
        AdmissionError: If the heaviest do.
    """
    share = float(rows.weights.sort(descending=True).values[:byzantine].sum() / rows.weights.sum())
    if share >= 0.5:
        raise AdmissionError(
            f"{byzantine} of {len(rows)} updates could outvote the rest",
            expected="less than half of the weight in any that many",
            got=f"{share:.0%}",
            remedy="Wait for more sites, even out the weights, or tolerate fewer Byzantine sites.",
        )
