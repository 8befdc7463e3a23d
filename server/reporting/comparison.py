"""The comparison of arms at held-out sites, read from ``result.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from f2l_fed.errors import DataError
from f2l_fed.evaluation.arm_names import FEWEST_SITES

__all__ = [
    "GROUPS",
    "Comparison",
    "Gap",
    "MeasuredArm",
    "TargetAccuracy",
    "read_comparisons",
]

GROUPS = ("seen", "unseen")


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredArm:
    """One arm with its measurements.

    Args:
        name: Key in the result; see `f2l_fed.evaluation.arm_names`.
        accuracy: Mean over sites for each number of steps, 0 to 1, NaN if not measured.
        ci95: Half width of the 95% interval of each, NaN if unknown.
        reached_after: Steps to the target accuracy; None if it was not reached or not measured.
        timed: Whether the steps to the target were measured.
    """

    name: str
    accuracy: tuple[float, ...]
    ci95: tuple[float, ...]
    reached_after: int | None
    timed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetAccuracy:
    """The target accuracy of all arms: the random start's after the last number of steps."""

    steps: int
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """The difference of two arms after the same number of steps.

    Args:
        steps: Number of local steps.
        first: Accuracy of the first arm.
        second: Accuracy of the second arm.
        noise: 95% half width of the difference of independent means, NaN if unknown.
    """

    steps: int
    first: float
    second: float
    noise: float

    @property
    def size(self) -> float:
        """Difference of the accuracies; above 0 if the first is better."""
        return self.first - self.second

    @property
    def clear(self) -> bool:
        """Whether the difference is larger than its uncertainty, which must be known."""
        return abs(self.size) > self.noise


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All arms at one kind of held-out sites.

    Args:
        group: ``seen`` or ``unseen``.
        steps: Numbers of local steps, increasing.
        arms: The arms, in the order of the result.
        target: The target accuracy, if steps to one were measured.
        confidence: "loss", "calibration_error" and "accuracy_at_80" of each start by arm; empty in
            results of older versions.
    """

    group: str
    steps: tuple[int, ...]
    arms: tuple[MeasuredArm, ...]
    target: TargetAccuracy | None
    confidence: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def arm(self, name: str) -> MeasuredArm | None:
        """The arm of a name; None if it was not measured."""
        return next((arm for arm in self.arms if arm.name == name), None)

    def best(self, column: int) -> float:
        """Highest accuracy after ``steps[column]`` steps, NaN if none was measured."""
        known = [a.accuracy[column] for a in self.arms if not math.isnan(a.accuracy[column])]
        return max(known, default=math.nan)

    def gaps(self, first: str, second: str) -> tuple[Gap, ...]:
        """The first arm minus the second, after all numbers of steps measured for both."""
        one, other = self.arm(first), self.arm(second)
        if one is None or other is None:
            return ()
        gaps = (
            Gap(
                steps=n,
                first=one.accuracy[i],
                second=other.accuracy[i],
                noise=math.hypot(one.ci95[i], other.ci95[i]),
            )
            for i, n in enumerate(self.steps)
        )
        return tuple(gap for gap in gaps if not math.isnan(gap.size))


def read_comparisons(result: Mapping[str, Any]) -> dict[str, Comparison]:
    """The comparisons of a result, by group.

    Args:
        result: Content of ``result.json``.

    Raises:
        DataError: If a list differs in length from the steps, or is not a list of numbers.
    """
    held_out = result.get("held_out") or {}
    timings = result.get("steps_to_target") or {}
    sites = result.get("held_out_sites") or {}
    return {
        group: _read_comparison(
            group,
            held_out[group],
            timings.get(group) or {},
            few=sites.get(group, FEWEST_SITES) < FEWEST_SITES,
        )
        for group in GROUPS
        if held_out.get(group)
    }


def _read_comparison(
    group: str, measured: Mapping[str, Any], timing: Mapping[str, Any], *, few: bool
) -> Comparison:
    where = f"held_out.{group}"
    steps = tuple(int(n) for n in _numbers(measured.get("steps"), f"{where}.steps"))
    if list(steps) != sorted(set(steps)):
        raise DataError(
            "the numbers of steps are not increasing", where=f"{where}.steps", got=str(list(steps))
        )
    target, reached = timing.get("target"), timing.get("arms") or {}
    return Comparison(
        group=group,
        steps=steps,
        arms=tuple(
            MeasuredArm(
                name=name,
                accuracy=_numbers(arm.get("accuracy"), f"{where}.arms.{name}.accuracy", len(steps)),
                ci95=_numbers(
                    [None] * len(steps) if few else arm.get("ci95", [None] * len(steps)),
                    f"{where}.arms.{name}.ci95",
                    len(steps),
                ),
                reached_after=reached.get(name),
                timed=name in reached,
            )
            for name, arm in (measured.get("arms") or {}).items()
        ),
        target=TargetAccuracy(steps=target["steps"], accuracy=target["accuracy"])
        if target
        else None,
        confidence=measured.get("confidence") or {},
    )


def _numbers(
    values: Sequence[float | None] | None, where: str, count: int | None = None
) -> tuple[float, ...]:
    numeric = isinstance(values, list | tuple) and all(
        value is None or isinstance(value, int | float) for value in values
    )
    if values is None or not numeric or (count is not None and len(values) != count):
        raise DataError(
            "not a valid list of numbers",
            where=where,
            expected="numbers" if count is None else f"{count} numbers, one for each step count",
            got=repr(values)[:80],
            remedy="Write the result again with `f2l-admin simulate`.",
        )
    return tuple(math.nan if value is None else float(value) for value in values)
