"""Scenarios in which every site has as many examples of each class as chance or nature gave it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from f2l_fed.core.random_streams import stream
from f2l_fed.data.array_checks import IntArray
from f2l_fed.data.scenarios.pool import Pool
from f2l_fed.data.scenarios.site_plan import SitePlan

# A site can learn and be tested when this many of its classes have this many examples each.
_CLASSES_PER_SITE = 2
_EXAMPLES_PER_CLASS = 4


def _usable(counts: IntArray) -> npt.NDArray[np.bool_]:
    enough: IntArray = (counts >= _EXAMPLES_PER_CLASS).sum(axis=1)
    return enough >= _CLASSES_PER_SITE


def _site(
    name: str,
    pool: Pool,
    rows_by_class: list[IntArray],
    seed: int,
    test_count: Callable[[int], int],
) -> SitePlan:
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


def _quarter(count: int) -> int:
    return count // 4
