"""The natural scenario: the sites are the data's own groups."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from f2l_fed.core.random_streams import stream
from f2l_fed.data.array_checks import IntArray
from f2l_fed.data.readers.division import held_out_groups
from f2l_fed.data.scenarios.config import SplitConfig
from f2l_fed.data.scenarios.pool import Pool
from f2l_fed.data.scenarios.site_plan import ScenarioPlan, SitePlan
from f2l_fed.data.scenarios.unbalanced import further, plan_site, usable_sites
from f2l_fed.errors import DataError


def plan_natural(
    pool: Pool, *, sites: int, held_out: int, seed: int, config: SplitConfig
) -> ScenarioPlan:
    """Makes every group of the data a site, such as one speaker; small groups are left out.

    Args:
        pool: All examples, with groups.
        sites: Most training sites; fewer where there are fewer groups.
        held_out: Groups that are held out, the last ones in a shuffled order.
        seed: The run's seed.
        config: Settings.

    Raises:
        DataError: If there are no groups or too few.
    """
    if pool.groups is None:
        raise DataError(
            "the dataset has no groups, which the natural scenario needs",
            where=", ".join(pool.names),
            remedy="Add an array named groups to the .npz file, or choose another scenario.",
        )
    distinct = np.unique(pool.groups)
    members = [np.flatnonzero(pool.groups == group) for group in distinct]
    counts = np.stack([np.bincount(pool.y[rows], minlength=pool.classes) for rows in members])
    fit = np.flatnonzero(usable_sites(counts))
    usable = [members[index] for index in fit]
    if len(usable) < held_out + 1:
        raise DataError(
            "there are too few groups with two classes of four examples",
            where=", ".join(pool.names),
            expected=f"at least {held_out + 1} ({held_out} held out + 1 for training)",
            got=f"{len(usable)} of {len(distinct)}",
            remedy="Hold out fewer sites or add groups.",
        )
    names = [pool.group_names[distinct[index]] for index in fit] if pool.group_names else []
    order = stream(seed, "natural").permutation(len(usable))
    inside, outside = order[: len(usable) - held_out][:sites], order[len(usable) - held_out :]

    def by_class(index: int) -> list[IntArray]:
        rows = usable[index]
        return [rows[pool.y[rows] == label] for label in range(pool.classes)]

    training = tuple(
        plan_site(
            names[index] if names else f"site-{number:03d}",
            pool,
            by_class(index),
            seed,
            further(config),
        )
        for number, index in enumerate(inside)
    )

    def test_count(index: int) -> Callable[[int], int]:
        shots = config.least_shots(int((counts[fit[index]] > 0).sum()))
        # More examples to learn from where half of them would not be enough to take part.
        part = 2 if shots == config.held_out_shots else 4
        return lambda count: max(count - shots, count // part)

    def held_out_site(name: str, index: int) -> SitePlan:
        if pool.together is None:
            return plan_site(name, pool, by_class(index), seed, test_count(index))
        counts = [len(rows) for rows in by_class(index) if len(rows)]
        share = sum(map(test_count(index), counts)) / sum(counts)
        return _grouped_site(name, pool, usable[index], seed, share)

    seen = tuple(
        held_out_site(names[index] if names else f"seen-{number:03d}", index)
        for number, index in enumerate(outside)
    )
    return ScenarioPlan(
        training=training, seen=seen, unseen=None, shared_labels=True, disjoint=True
    )


def _grouped_site(name: str, pool: Pool, rows: IntArray, seed: int, share: float) -> SitePlan:
    """A held-out site that is measured on about a share of its rows, whole groups of them."""
    assert pool.together is not None
    order = stream(seed, "site", name).permutation(len(rows))
    test = rows[held_out_groups(pool.together[rows], pool.y[rows], order, share)]
    if not test.size:
        raise DataError(
            "no group can be measured on without taking the last one of a class",
            where=f"site {name}",
            remedy="Add groups, or remove group under [data].",
        )
    return SitePlan(
        name=name,
        classes=tuple(range(pool.classes)),
        train=np.setdiff1d(rows, test),
        test=test,
    )
