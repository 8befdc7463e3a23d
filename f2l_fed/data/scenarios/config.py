"""Settings of the scenarios."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import isfinite

from f2l_fed.errors import UsageError

__all__ = ["SplitConfig", "require_positive"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitConfig:
    """Settings of the division of a pool among sites.

    Args:
        ways: Classes of a site in the few-shot scenario.
        most_ways: Most classes of a site there; if it is above ``ways``, the number of each site is
            drawn from ``ways`` to this.
        shots: Training examples per class at training sites (few-shot, camera).
        held_out_shots: Training examples per class at held-out sites.
        test_per_class: Test examples per class at held-out sites.
        validation_per_class: Test examples per class at training sites (few-shot, camera).
        held_out_fraction: Share of every class kept for held-out sites; more or less where a
            class has so few examples that its sites would otherwise go short.
        unseen_fraction: Share of the classes that no training site has (few-shot).
        dirichlet_alpha: Concentration of the label skew; the smaller, the more skew.

    Raises:
        UsageError: If a value is out of range.
    """

    ways: int = 5
    most_ways: int = 0
    shots: int = 50
    held_out_shots: int = 5
    test_per_class: int = 50
    validation_per_class: int = 10
    held_out_fraction: float = 0.3
    unseen_fraction: float = 0.3
    dirichlet_alpha: float = 0.1

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name not in ("most_ways", "held_out_fraction", "unseen_fraction"):
                require_positive(field.name, getattr(self, field.name))
        if self.ways < 2:
            raise UsageError("ways is too small", expected=">= 2", got=str(self.ways))
        if not 0 < self.held_out_fraction < 1:
            raise UsageError(
                "held_out_fraction is out of range",
                expected="above 0 and below 1",
                got=str(self.held_out_fraction),
            )
        if not 0 <= self.unseen_fraction < 1:
            raise UsageError(
                "unseen_fraction is out of range",
                expected="0 or more and below 1",
                got=str(self.unseen_fraction),
            )


def require_positive(name: str, value: float) -> None:
    """Requires a count to be above zero.

    Raises:
        UsageError: If it is not.
    """
    if not value > 0 or not isfinite(value):
        raise UsageError(
            f"{name} is not positive", expected="> 0", got=str(value), remedy=f"Raise {name}."
        )
