"""Who gets which examples: the settings of a split, and a split in terms of pool rows."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from f2l_fed.core.random_streams import stream
from f2l_fed.data.array_checks import IntArray
from f2l_fed.data.image_transforms import Camera
from f2l_fed.data.scenarios.pool import Pool
from f2l_fed.errors import UsageError

__all__ = [
    "ClassParts",
    "ScenarioPlan",
    "SitePlan",
    "SplitConfig",
    "held_out_parts",
    "require_positive",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitConfig:
    """How a pool is divided.

    Args:
        ways: Classes of a site in the few-shot scenario.
        shots: Training examples per class at training sites (few-shot, camera).
        held_out_shots: Training examples per class at held-out sites.
        test_per_class: Test examples per class at held-out sites.
        validation_per_class: Test examples per class at training sites (few-shot, camera).
        held_out_fraction: Share of every class kept for held-out sites; more or less where a
            class has so few examples that its sites would otherwise go short.
        unseen_fraction: Share of the classes that no training site has (few-shot).
        dirichlet_alpha: Concentration of the label skew; the smaller, the more skew.

    Raises:
        UsageError: If a value can't stand.
    """

    ways: int = 5
    shots: int = 50
    held_out_shots: int = 5
    test_per_class: int = 50
    validation_per_class: int = 10
    held_out_fraction: float = 0.3
    unseen_fraction: float = 0.3
    dirichlet_alpha: float = 0.1

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name not in ("held_out_fraction", "unseen_fraction"):
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SitePlan:
    """The examples of one site, as rows of the pool.

    Args:
        name: The site.
        classes: Pool classes in the order of the site's labels.
        train: (n,) int64, rows to train on.
        test: (m,) int64, rows to test on.
        camera: How the site sees the images; None for as they are.
    """

    name: str
    classes: tuple[int, ...]
    train: IntArray
    test: IntArray
    camera: Camera | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScenarioPlan:
    """A split in terms of pool rows, before any pixel is touched.

    Args:
        training: Sites that take part in rounds.
        seen: Sites held out of all training, with classes that training sites have.
        unseen: Sites held out of all training, with classes that no training site has; None
            where the scenario or the pool allows none.
        shared_labels: Whether a label means the same at every site.
        disjoint: Whether no two training sites have an example in common.
    """

    training: tuple[SitePlan, ...]
    seen: tuple[SitePlan, ...]
    unseen: tuple[SitePlan, ...] | None
    shared_labels: bool
    disjoint: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassParts:
    """One class's rows, divided between training sites and held-out sites, in random order."""

    training: IntArray
    held_out: IntArray


def held_out_parts(
    pool: Pool, label: int, *, fraction: float, seed: int, at_least: int = 0, spare: int = 0
) -> ClassParts:
    """Divides one class once and for all, so that no image is ever on both sides.

    Args:
        pool: All examples.
        label: Pool class.
        fraction: Share for held-out sites.
        seed: The run's seed.
        at_least: Rows that held-out sites get where the share is less.
        spare: Rows that training sites keep where the share would leave less; the class has
            at least ``at_least + spare``.
    """
    rows = stream(seed, "held-out", label).permutation(pool.rows(label))
    count = min(max(round(fraction * len(rows)), at_least), len(rows) - spare)
    return ClassParts(training=rows[count:], held_out=rows[:count])


def require_positive(name: str, value: float) -> None:
    """Refuses a count that is not above zero.

    Raises:
        UsageError: If it is not.
    """
    if not value > 0 or not np.isfinite(value):
        raise UsageError(
            f"{name} is not positive", expected="> 0", got=str(value), remedy=f"Raise {name}."
        )
