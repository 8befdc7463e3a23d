"""Robust statistics of figures over sites: median and deviation, from values in ascending order.

Law: while Byzantine sites are fewer than half, the median lies between two honest values and the
median deviation is bounded by honest differences, whatever Byzantine sites send and however often.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from math import exp, log
from typing import NamedTuple

from torch import Tensor

# Median deviations of a normal distribution in its standard deviation.
_NORMAL = 1.4826


class Reference(NamedTuple):
    """A figure over sites: median, robust standard deviation, and number of sites that have it."""

    median: float
    spread: float
    sites: int

    def deviations(self, values: Tensor) -> Tensor:
        """Distances of values from the median, in robust standard deviations; elementwise."""
        return (values - self.median) / self.spread


def reference_of(values: Sequence[float], floor: float) -> Reference:
    """Median and 1.4826 times the median deviation from it, which is at least ``floor``.

    >>> reference_of([1.0, 2.0, 3.0, 1e9], floor=0.1)
    Reference(median=2.5, spread=1.4826, sites=4)
    """
    return ascending_reference(sorted(values), floor)


def length_reference_of(lengths: Sequence[float], floor: float) -> Reference:
    """Median and the smaller of two robust standard deviations.

    One is 1.4826 times the median distance below the median of those that aren't above it, which
    a minority of long ones moves only as far as it moves the median; the other that of the
    logarithms, which a quarter of short ones doesn't widen as they do the first.

    Law: the spread is at most 1.4826 medians, since no length is below 0.

    Args:
        lengths: Positive lengths.
        floor: Smallest spread, in medians.

    >>> length_reference_of([0.25, 0.5, 1.0, 50.0, 60.0], floor=0.1)
    Reference(median=1.0, spread=0.7413, sites=5)
    """
    ordered = sorted(lengths)
    return _length_reference(ordered.__getitem__, [log(one) for one in ordered], floor)


def ascending_reference(ordered: Sequence[float], floor: float) -> Reference:
    """`reference_of` values in ascending order; in time that grows with their logarithm."""
    if not ordered:
        return Reference(0.0, floor, 0)
    median = _middle(ordered.__getitem__, len(ordered))
    return Reference(median, max(_NORMAL * _deviation(ordered, median), floor), len(ordered))


def ascending_length_reference(logs: Sequence[float], floor: float) -> Reference:
    """`length_reference_of` the lengths that have these logarithms, in ascending order."""
    return _length_reference(lambda row: exp(logs[row]), logs, floor)


def _length_reference(
    length: Callable[[int], float], logs: Sequence[float], floor: float
) -> Reference:
    number = len(logs)
    if not number:
        return Reference(0.0, floor, 0)
    median = _middle(length, number)
    short = bisect_right(range(number), median, key=length)
    below = _NORMAL * _middle(lambda row: median - length(row), short)
    ratio = exp(ascending_reference(logs, 0.0).spread) - 1
    return Reference(median, max(min(below, ratio * median), floor * median), number)


def _middle(value: Callable[[int], float], number: int) -> float:
    """The median of so many values in order."""
    return (value((number - 1) // 2) + value(number // 2)) / 2


def _deviation(ordered: Sequence[float], median: float) -> float:
    """The median distance of values in ascending order from their median.

    The k + 1 nearest ones lie side by side, so the k-th distance is the smallest over such
    windows of the larger distance of its ends.
    """
    number = len(ordered)

    def nearest(k: int) -> float:
        windows = range(number - k)
        first = bisect_left(
            windows, True, key=lambda row: ordered[row + k] - median >= median - ordered[row]
        )
        return min(
            max(median - ordered[row], ordered[row + k] - median)
            for row in (first - 1, first)
            if row in windows
        )

    return (nearest((number - 1) // 2) + nearest(number // 2)) / 2
