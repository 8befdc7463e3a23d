"""Common parts of the scenarios whose sites differ in their number of examples of each class."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from f2l_fed.core.random_streams import stream
from f2l_fed.data.array_checks import IntArray
from f2l_fed.data.scenarios.config import SplitConfig
from f2l_fed.data.scenarios.pool import Pool
from f2l_fed.data.scenarios.site_plan import SitePlan

CLASSES_PER_SITE = 2
"""Classes with enough examples that a site needs to learn and to be tested."""

EXAMPLES_PER_CLASS = 4
"""Examples that are enough for a class."""


def usable_sites(counts: IntArray) -> npt.NDArray[np.bool_]:
    """The sites that can learn and be tested.

    Args:
        counts: (n, K) int64, examples of each class at n sites.

    Returns:
        (n,) bool.
    """
    enough: IntArray = (counts >= EXAMPLES_PER_CLASS).sum(axis=1)
    return enough >= CLASSES_PER_SITE


def plan_site(
    name: str,
    pool: Pool,
    rows_by_class: list[IntArray],
    seed: int,
    test_count: Callable[[int], int],
) -> SitePlan:
    """Divides the rows of one site into training and test examples, class by class.

    Args:
        name: The site; its draws depend on it and the seed alone.
        pool: All examples.
        rows_by_class: The site's rows of each pool class.
        seed: The run's seed.
        test_count: From the number of a class's rows to the number of those for testing.
    """
    rng = stream(seed, "site", name)
    train, test = [], []
    for rows in rows_by_class:
        shuffled = rng.permutation(rows)
        cut = test_count(len(rows))
        test.append(shuffled[:cut])
        train.append(shuffled[cut:])
    return SitePlan(
        name=name,
        classes=tuple(range(pool.classes)),
        train=rng.permutation(np.concatenate(train)),
        test=np.concatenate(test),
    )


def further(config: SplitConfig) -> Callable[[int], int]:
    """The number of examples to measure on among the rows of a training site's class: a quarter,
    rounded down, unless the site keeps a share aside itself."""
    return lambda count: 0 if config.validation_fraction else count // 4
