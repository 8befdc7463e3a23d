"""A division of a pool among sites in terms of its rows, and the interface of scenarios."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from f2l_fed.core.random_streams import stream
from f2l_fed.data.array_checks import IntArray
from f2l_fed.data.image_transforms import Camera
from f2l_fed.data.scenarios.config import SplitConfig
from f2l_fed.data.scenarios.pool import Pool

__all__ = [
    "Change",
    "ClassParts",
    "PlannedChange",
    "Scenario",
    "ScenarioPlan",
    "SitePlan",
    "held_out_parts",
]


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


Change = Literal["joined", "left", "classes", "camera"]
"""What changes about a site: it joins, it leaves, it gets further classes or another camera."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlannedChange:
    """A change of one training site between two rounds.

    Args:
        after: Number of rounds that are over by then, 1 or more.
        what: What changes.
        site: The site as it is from then on; where it leaves, as it was.
    """

    after: int
    what: Change
    site: SitePlan


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
        changes: Of training sites between rounds, in their order.
        notes: What differs from the settings, as sentences.
    """

    training: tuple[SitePlan, ...]
    seen: tuple[SitePlan, ...]
    unseen: tuple[SitePlan, ...] | None
    shared_labels: bool
    disjoint: bool
    changes: tuple[PlannedChange, ...] = ()
    notes: tuple[str, ...] = ()


class Scenario(Protocol):
    """Divides a pool among sites."""

    def __call__(
        self, pool: Pool, *, sites: int, held_out: int, seed: int, config: SplitConfig
    ) -> ScenarioPlan:
        """Plans a federation.

        Args:
            pool: All examples.
            sites: Training sites.
            held_out: Held-out sites of each kind.
            seed: The run's seed; the same one gives the same plan.
            config: Settings of the split.

        Raises:
            DataError: If the pool does not suffice for the scenario.
        """


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
