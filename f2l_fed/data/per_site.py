"""Scenarios in which every site has as many examples of each class as chance or nature gave it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from f2l_fed.data.checks import IntArray
from f2l_fed.data.pool import Pool
from f2l_fed.data.split import Plan, SitePlan, SplitConfig, held_out_parts
from f2l_fed.data.streams import stream
from f2l_fed.errors import DataError

__all__ = ["plan_dirichlet", "plan_natural"]

_Gammas = npt.NDArray[np.float64]

# A site can learn and be tested when this many of its classes have this many examples each.
_CLASSES_PER_SITE = 2
_EXAMPLES_PER_CLASS = 4
_REDRAWS = 1000


def plan_dirichlet(
    pool: Pool, *, sites: int, held_out: int, seed: int, config: SplitConfig
) -> Plan:
    """Skews the labels: each class is shared out over the sites by a Dirichlet draw.

    A Dirichlet draw over sites is a row of Gamma draws divided by their sum. The Gamma draws of
    a site that would end up without two classes of four examples are drawn again, until every
    site has them. This leaves out the most skewed sites: where there are few examples per site,
    what remains is clearly less skewed than ``dirichlet_alpha`` by itself would make it.

    A held-out site draws its own class proportions from the same law and takes up to
    ``held_out_shots + test_per_class`` examples per class of the pool from held-out images.

    Args:
        pool: All examples.
        sites: Training sites; they divide all training images, a quarter of each for testing.
        held_out: Held-out sites.
        seed: The run's seed.
        config: Settings.

    Raises:
        DataError: If there are too few examples for so many sites or so much skew.

    Reference:
        Hsu et al., arXiv 1909.06335, for Dirichlet label skew.
    """
    parts = [
        held_out_parts(pool, label, fraction=config.held_out_fraction, seed=seed)
        for label in range(pool.classes)
    ]
    offered = np.array([len(part.training) for part in parts])
    needed = sites * _CLASSES_PER_SITE * _EXAMPLES_PER_CLASS
    if offered.sum() < needed:
        raise DataError(
            "there are too few examples for so many sites",
            where=", ".join(pool.names),
            expected=f"at least {needed} for {sites} training sites",
            got=str(offered.sum()),
            remedy="Use fewer sites or add examples.",
        )

    def divide(gammas: _Gammas) -> IntArray:
        ends = np.cumsum(gammas / gammas.sum(axis=0), axis=0) * offered
        counts: IntArray = np.diff(np.rint(ends).astype(np.int64), axis=0, prepend=0)
        return counts

    rng = stream(seed, "dirichlet", "training")
    counts = _draw_usable(rng, (sites, pool.classes), divide, config)
    ends = np.cumsum(counts, axis=0)[:-1]
    shares = [np.split(part.training, ends[:, label]) for label, part in enumerate(parts)]
    training = tuple(
        _site(f"site-{index:03d}", pool, [share[index] for share in shares], seed, _quarter)
        for index in range(sites)
    )
    reserved = np.array([len(part.held_out) for part in parts])
    size = (config.held_out_shots + config.test_per_class) * pool.classes

    def sample(gammas: _Gammas) -> IntArray:
        proportions = gammas / gammas.sum(axis=1, keepdims=True)
        counts: IntArray = np.minimum(np.rint(proportions * size).astype(np.int64), reserved)
        return counts

    rng = stream(seed, "dirichlet", "held-out")
    wanted = _draw_usable(rng, (held_out, pool.classes), sample, config)
    test_share = config.test_per_class / (config.held_out_shots + config.test_per_class)
    seen = tuple(
        _site(
            f"seen-{index:03d}",
            pool,
            [
                rng.permutation(part.held_out)[:count]
                for part, count in zip(parts, row, strict=True)
            ],
            seed,
            lambda count: int(count * test_share),
        )
        for index, row in enumerate(wanted)
    )
    return Plan(training=training, seen=seen, unseen=None, shared_labels=True, disjoint=True)


def plan_natural(pool: Pool, *, sites: int, held_out: int, seed: int, config: SplitConfig) -> Plan:
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
            "the natural scenario needs to know which site each example comes from",
            where=", ".join(pool.names),
            remedy="Add an array named groups to the .npz file, or choose another scenario.",
        )
    distinct = np.unique(pool.groups)
    members = [np.flatnonzero(pool.groups == group) for group in distinct]
    counts = np.stack([np.bincount(pool.y[rows], minlength=pool.classes) for rows in members])
    usable = [members[index] for index in np.flatnonzero(_usable(counts))]
    if len(usable) < held_out + 1:
        raise DataError(
            "there are too few groups with two classes of four examples",
            where=", ".join(pool.names),
            expected=f"at least {held_out + 1} ({held_out} held out + 1 for training)",
            got=f"{len(usable)} of {len(distinct)}",
            remedy="Hold out fewer sites or add groups.",
        )
    order = stream(seed, "natural").permutation(len(usable))
    inside, outside = order[: len(usable) - held_out][:sites], order[len(usable) - held_out :]

    def by_class(index: int) -> list[IntArray]:
        rows = usable[index]
        return [rows[pool.y[rows] == label] for label in range(pool.classes)]

    training = tuple(
        _site(f"site-{number:03d}", pool, by_class(index), seed, _quarter)
        for number, index in enumerate(inside)
    )
    seen = tuple(
        _site(
            f"seen-{number:03d}",
            pool,
            by_class(index),
            seed,
            lambda count: max(count - config.held_out_shots, count // 2),
        )
        for number, index in enumerate(outside)
    )
    return Plan(training=training, seen=seen, unseen=None, shared_labels=True, disjoint=True)


def _draw_usable(
    rng: np.random.Generator,
    shape: tuple[int, int],
    count: Callable[[_Gammas], IntArray],
    config: SplitConfig,
) -> IntArray:
    # The least float keeps a class that no site drew from dividing zero by zero.
    def gammas(rows: int) -> _Gammas:
        drawn = rng.gamma(config.dirichlet_alpha, size=(rows, shape[1]))
        return drawn + np.finfo(np.float64).tiny

    drawn = gammas(shape[0])
    for _ in range(_REDRAWS):
        counts = count(drawn)
        poor = ~_usable(counts)
        if not poor.any():
            return counts
        drawn[poor] = gammas(int(poor.sum()))
    raise DataError(
        f"the label skew leaves {int(poor.sum())} of {shape[0]} sites without two classes of "
        f"four examples, in each of {_REDRAWS} draws",
        remedy="Use fewer sites, raise dirichlet_alpha or add examples.",
    )


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
