"""Settings of the scenarios."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import isfinite

from f2l_fed.errors import UsageError

__all__ = ["USUAL_WAYS", "SplitConfig", "require_positive"]

USUAL_WAYS = 5
"""Classes of a site in the few-shot scenarios where none are set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitConfig:
    """Settings of the division of a pool among sites.

    Args:
        ways: Classes of a site in the few-shot scenario; 0 for `USUAL_WAYS`, or all where the
            data have fewer.
        most_ways: Most classes of a site there; if it is above ``ways``, the number of each site is
            drawn from ``ways`` to this.
        shots: Examples per class at training sites (few-shot, camera).
        held_out_shots: Examples per class at held-out sites.
        test_per_class: Further examples per class at held-out sites, to measure the federation on.
        validation_fraction: Share of every class of a site's examples that it keeps aside to
            measure on, as sites do by default; 0 for none, and training sites measure on further
            examples.
        validation_per_class: The number of these per class (few-shot, camera); elsewhere they are a
            quarter of the site's.
        minimum_examples: Smallest number of examples to learn from with which a site takes part.
            Sites with fewer, whose policy would refuse, are left out; below the default, all limits
            of a policy on small numbers of examples are lowered with it.
        held_out_fraction: Share of every class kept for held-out sites; more or less where a
            class has so few examples that its sites would otherwise go short.
        unseen_fraction: Share of the classes that no training site has (few-shot).
        dirichlet_alpha: Concentration of the label skew; the smaller, the more skew.
        cameras: Whether every site sees its images turned by quarters, maybe with inverted colours
            (few-shot).

    Raises:
        UsageError: If a value is out of range.
    """

    ways: int = 0
    most_ways: int = 0
    shots: int = 50
    held_out_shots: int = 5
    test_per_class: int = 50
    validation_fraction: float = 0.2
    validation_per_class: int = 10
    minimum_examples: int = 10
    held_out_fraction: float = 0.3
    unseen_fraction: float = 0.3
    dirichlet_alpha: float = 0.1
    cameras: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            other = field.name in ("ways", "most_ways", "cameras")
            if not other and not field.name.endswith("fraction"):
                require_positive(field.name, getattr(self, field.name))
        if self.ways and self.ways < 2:
            raise UsageError("ways is too small", expected=">= 2", got=str(self.ways))
        if not 0 < self.held_out_fraction < 1:
            raise UsageError(
                "held_out_fraction is out of range",
                expected="above 0 and below 1",
                got=str(self.held_out_fraction),
            )
        for name in ("unseen_fraction", "validation_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(
                    f"{name} is out of range",
                    expected="0 or more and below 1",
                    got=str(getattr(self, name)),
                )

    @property
    def usual_ways(self) -> int:
        """Classes of a site, where the data have as many."""
        return self.ways or USUAL_WAYS

    def ways_among(self, classes: int) -> int:
        """Classes of a site where the data have so many; only a number that was set is a demand."""
        return self.ways or min(USUAL_WAYS, classes)

    def least_shots(self, classes: int) -> int:
        """Examples per class of a held-out site: ``held_out_shots``, or as many as it needs to take
        part if it has so few classes."""
        shots = self.held_out_shots
        while classes * (shots - self.kept_aside(shots)) < self.minimum_examples:
            shots += 1
        return shots

    def kept_aside(self, count: int) -> int:
        """The number of examples of a class that a site keeps aside."""
        share = self.validation_fraction
        return min(max(round(share * count), 1), count - 1) if share else 0

    @property
    def further_per_class(self) -> int:
        """Examples per class that training sites have only to measure on (few-shot, camera)."""
        return 0 if self.validation_fraction else self.validation_per_class


def require_positive(name: str, value: float) -> None:
    """Requires a count to be above zero.

    Raises:
        UsageError: If it is not.
    """
    if not value > 0 or not isfinite(value):
        raise UsageError(
            f"{name} is not positive", expected="> 0", got=str(value), remedy=f"Raise {name}."
        )
