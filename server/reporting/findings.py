"""Findings about the generated start, in sentences that claim no more than was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from f2l_fed.evaluation.arm_names import ALONE, GENERATED, RANDOM
from server.reporting.comparison import Comparison

__all__ = [
    "Rival",
    "Verdict",
    "after",
    "alone",
    "factor",
    "one_step",
    "rivals",
    "speed",
    "start",
    "trust",
    "verdict",
]

Verdict = Literal["gain", "unclear", "loss", "missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """An arm that is above the generated start after some number of steps.

    Args:
        name: Key of the arm.
        steps: Numbers of steps after which it is above.
        clear: Those after which it is above by more than the uncertainty.
        lead: Its largest lead, a difference of accuracies.
    """

    name: str
    steps: tuple[int, ...]
    clear: tuple[int, ...]
    lead: float


def verdict(comparison: Comparison) -> Verdict:
    """The generated start against the random one, after the fewest steps measured."""
    gaps = comparison.gaps(GENERATED, RANDOM)
    if not gaps:
        return "missing"
    if not gaps[0].clear:
        return "unclear"
    return "gain" if gaps[0].size > 0 else "loss"


def start(comparison: Comparison) -> str:
    """The headline: accuracy of a generated and of a random start."""
    gaps = comparison.gaps(GENERATED, RANDOM)
    if not gaps:
        return "The generated start was not compared with a random one."
    ours, theirs = f"{gaps[0].first:.1%}", f"{gaps[0].second:.1%}"
    match verdict(comparison):
        case "gain":
            return (
                f"A generated network has an accuracy of {ours} {_moment(gaps[0].steps)}, "
                f"a random one {theirs}."
            )
        case "loss":
            return (
                f"A generated network is worse than a random one: an accuracy of {ours} "
                f"{_moment(gaps[0].steps)}, against {theirs}."
            )
        case _:
            bound = "unknown uncertainty" if math.isnan(gaps[0].noise) else "the uncertainty"
            return (
                f"No clear gain: a generated network has an accuracy of {ours} "
                f"{_moment(gaps[0].steps)}, a random one {theirs}, and the difference is "
                f"within {bound}."
            )


def one_step(comparison: Comparison) -> str:
    """The same after a single step; empty if that was not measured."""
    gaps = [gap for gap in comparison.gaps(GENERATED, RANDOM) if gap.steps == 1]
    return "".join(
        f"After one step it is {gap.first:.1%} against {gap.second:.1%}." for gap in gaps
    )


def speed(comparison: Comparison) -> str:
    """The steps that the generated start saves to the target accuracy."""
    lead, target = comparison.arm(GENERATED), comparison.target
    if lead is None or target is None or not lead.timed:
        return "The number of steps to a common accuracy was not measured."
    goal = f"the {target.accuracy:.1%} of a random start after {target.steps} steps"
    reached = lead.reached_after
    if reached is None:
        return f"It does not reach {goal}."
    if reached == 0:
        return f"Without any step it reaches {goal}."
    # A random start may have reached it earlier, and have lost it by the last step.
    base = comparison.arm(RANDOM)
    slow = target.steps if base is None or base.reached_after is None else base.reached_after
    found = f"{after([reached]).capitalize()} it reaches {goal}"
    if slow < target.steps:
        found += f", which that start first reached after {slow}"
    if reached >= slow:
        return f"{found}: none saved."
    if 2 * reached > slow:
        return f"{found}: {slow - reached} fewer."
    return f"{found}: {factor(slow, reached)} times fewer."


def alone(comparison: Comparison) -> str:
    """The accuracy of a network that a site trains alone; empty if it was not measured."""
    own = comparison.arm(ALONE)
    if own is None or math.isnan(own.accuracy[0]):
        return ""
    return f"A network that the site trains alone, to the end, reaches {own.accuracy[0]:.1%}."


def trust(comparison: Comparison) -> str:
    """The worth of the generated start's probabilities; empty if it was not measured."""
    own = comparison.confidence.get(GENERATED)
    if not own:
        return ""
    return (
        f"How sure it says it is differs by {own['calibration_error']:.1%} from how often it is "
        f"right; of the 80% of answers that it is surest of, {own['accuracy_at_80']:.1%} are right."
    )


def after(steps: Sequence[int]) -> str:
    """Numbers of steps in words.

    >>> after([1]), after([0, 1, 20])
    ('after 1 step', 'after 0, 1 and 20 steps')
    """
    *others, last = steps
    counts = f"{', '.join(map(str, others))} and {last}" if others else f"{last}"
    return f"after {counts} step{'' if list(steps) == [1] else 's'}"


def factor(slow: int, fast: int) -> str:
    """The ratio of two numbers of steps, rounded down.

    >>> factor(50, 3), factor(50, 6), factor(50, 1)
    ('16', '8.3', '50')
    """
    ratio = slow / fast
    return f"{math.floor(ratio)}" if ratio >= 10 else f"{math.floor(ratio * 10) / 10:g}"


def rivals(comparison: Comparison) -> tuple[Rival, ...]:
    """Arms that are above the generated start after some number of steps, largest lead first."""
    found = []
    for arm in comparison.arms:
        ahead = [gap for gap in comparison.gaps(arm.name, GENERATED) if gap.size > 0]
        if ahead:
            found.append(
                Rival(
                    name=arm.name,
                    steps=tuple(gap.steps for gap in ahead),
                    clear=tuple(gap.steps for gap in ahead if gap.clear),
                    lead=max(gap.size for gap in ahead),
                )
            )
    return tuple(sorted(found, key=lambda rival: -rival.lead))


def _moment(steps: int) -> str:
    return "before any fine-tuning" if steps == 0 else after([steps])
