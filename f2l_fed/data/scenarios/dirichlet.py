"""The Dirichlet scenario: the labels are skewed across sites."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from f2l_fed.core.random_streams import stream
from f2l_fed.data.array_checks import IntArray
from f2l_fed.data.scenarios.config import SplitConfig
from f2l_fed.data.scenarios.pool import Pool
from f2l_fed.data.scenarios.site_plan import ScenarioPlan, held_out_parts
from f2l_fed.data.scenarios.unbalanced import (
    CLASSES_PER_SITE,
    EXAMPLES_PER_CLASS,
    further,
    plan_site,
    usable_sites,
)
from f2l_fed.errors import DataError

_Gammas = npt.NDArray[np.float64]

_REDRAWS = 1000


def plan_dirichlet(
    pool: Pool, *, sites: int, held_out: int, seed: int, config: SplitConfig
) -> ScenarioPlan:
    """Skews the labels: each class is shared out over the sites by a Dirichlet draw.

    A Dirichlet draw over sites is a row of Gamma draws divided by their sum. The Gamma draws of
    a site that would end up without two classes of four examples are drawn again, until every
    site has them. This leaves out the most skewed sites: where there are few examples per site,
    what remains is clearly less skewed than ``dirichlet_alpha`` by itself would make it.

    A held-out site draws its own class proportions from the same law and takes up to
    ``held_out_shots + test_per_class`` examples per class of the pool from held-out images. It
    learns from the share that these two make, or from more if that were too few to take part.

    Args:
        pool: All examples.
        sites: Training sites; they divide all training images.
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
    available = np.array([len(part.training) for part in parts])
    needed = sites * CLASSES_PER_SITE * EXAMPLES_PER_CLASS
    if available.sum() < needed:
        raise DataError(
            "there are too few examples for so many sites",
            where=", ".join(pool.names),
            expected=f"at least {needed} for {sites} training sites",
            got=str(available.sum()),
            remedy="Use fewer sites or add examples.",
        )

    def divide(gammas: _Gammas) -> IntArray:
        ends = np.cumsum(gammas / gammas.sum(axis=0), axis=0) * available
        counts: IntArray = np.diff(np.rint(ends).astype(np.int64), axis=0, prepend=0)
        return counts

    rng = stream(seed, "dirichlet", "training")
    counts = _draw_usable(rng, (sites, pool.classes), divide, config)
    ends = np.cumsum(counts, axis=0)[:-1]
    shares = [np.split(part.training, ends[:, label]) for label, part in enumerate(parts)]
    training = tuple(
        plan_site(
            f"site-{index:03d}", pool, [share[index] for share in shares], seed, further(config)
        )
        for index in range(sites)
    )
    reserved = np.array([len(part.held_out) for part in parts])
    size = (config.held_out_shots + config.test_per_class) * pool.classes

    def sample(gammas: _Gammas) -> IntArray:
        proportions = gammas / gammas.sum(axis=1, keepdims=True)
        counts: IntArray = np.minimum(np.rint(proportions * size).astype(np.int64), reserved)
        return counts

    rng = stream(seed, "dirichlet", "held-out")
    held_out_counts = _draw_usable(rng, (held_out, pool.classes), sample, config)

    def test_count(row: IntArray) -> Callable[[int], int]:
        share = config.test_per_class / (config.held_out_shots + config.test_per_class)
        # At least so many examples to learn from that the site can take part.
        needed = config.minimum_examples / (1 - config.validation_fraction)
        needed += int((row > 0).sum()) if config.validation_fraction else 0
        share = min(share, max(1 - needed / int(row.sum()), 0.25))
        return lambda count: int(count * share)

    seen = tuple(
        plan_site(
            f"seen-{index:03d}",
            pool,
            [
                rng.permutation(part.held_out)[:count]
                for part, count in zip(parts, row, strict=True)
            ],
            seed,
            test_count(row),
        )
        for index, row in enumerate(held_out_counts)
    )
    return ScenarioPlan(
        training=training, seen=seen, unseen=None, shared_labels=True, disjoint=True
    )


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
        poor = ~usable_sites(counts)
        if not poor.any():
            return counts
        drawn[poor] = gammas(int(poor.sum()))
    raise DataError(
        f"the label skew leaves {int(poor.sum())} of {shape[0]} sites without two classes of "
        f"four examples, in each of {_REDRAWS} draws",
        remedy="Use fewer sites, raise dirichlet_alpha or add examples.",
    )
