"""The few-shot scenario: every site has classes, a label order and maybe a camera of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from f2l_fed.core.random_streams import stream
from f2l_fed.data.image_transforms import Camera, draw_quarter_turn
from f2l_fed.data.scenarios.balanced import (
    held_out_needs,
    plan_held_out_sites,
    plan_seen_classes,
    require_examples,
)
from f2l_fed.data.scenarios.config import SplitConfig
from f2l_fed.data.scenarios.pool import Pool
from f2l_fed.data.scenarios.site_plan import ScenarioPlan
from f2l_fed.errors import DataError


def plan_few_shot(
    pool: Pool, *, sites: int, held_out: int, seed: int, config: SplitConfig
) -> ScenarioPlan:
    """Gives every site its own few classes, its own label order and, where set, its own camera.

    Args:
        pool: All examples.
        sites: Training sites.
        held_out: Held-out sites of each kind.
        seed: The run's seed.
        config: Settings.

    Raises:
        DataError: If there are too few classes, or too few examples of a class.
    """
    fewest = config.ways_among(pool.classes)
    most = max(fewest, config.most_ways)
    setting = "most_ways" if most > fewest else "ways"
    if pool.classes < most:
        raise DataError(
            "there are too few classes for the few-shot scenario",
            where=", ".join(pool.names),
            expected=f"at least {most} ({setting})",
            got=str(pool.classes),
            remedy=f"Lower {setting} or add a dataset.",
        )
    # The small term keeps 0.29 of 100 classes from becoming 28.
    unseen_count = int(config.unseen_fraction * pool.classes + 1e-9)
    if unseen_count < most:
        unseen_count = 0
    seen_count = pool.classes - unseen_count
    if seen_count < most:
        raise DataError(
            "too few classes are left for training sites",
            where=", ".join(pool.names),
            expected=f"at least {most} ({setting})",
            got=f"{seen_count} of {pool.classes}",
            remedy=f"Lower unseen_fraction or {setting}.",
        )

    def draw(
        rng: np.random.Generator, classes: Sequence[int]
    ) -> tuple[Sequence[int], Camera | None]:
        ways = most if most == fewest else int(rng.integers(fewest, most + 1))
        chosen = rng.permutation(classes)[:ways].tolist()
        return chosen, draw_quarter_turn(rng, pool.shape) if config.cameras else None

    order = stream(seed, "unseen classes").permutation(pool.classes).tolist()
    seen, unseen = sorted(order[unseen_count:]), sorted(order[:unseen_count])
    training, held_out_seen, disjoint = plan_seen_classes(
        pool, seen, draw, sites=sites, held_out=held_out, seed=seed, config=config
    )
    held_out_unseen = None
    if unseen:
        require_examples(pool, unseen, held_out_needs(config))
        whole = {label: pool.rows(label) for label in unseen}
        held_out_unseen = plan_held_out_sites("unseen", held_out, whole, draw, seed, config)
    return ScenarioPlan(
        training=training,
        seen=held_out_seen,
        unseen=held_out_unseen,
        shared_labels=False,
        disjoint=disjoint,
        notes=_about_ways(pool, fewest, config),
    )


def _about_ways(pool: Pool, fewest: int, config: SplitConfig) -> tuple[str, ...]:
    """The note on sites that have fewer classes than usual."""
    if fewest == config.usual_ways:
        return ()
    return (
        f"The data have {pool.classes} classes, so each site has all of them in place of "
        f"{config.usual_ways}.",
    )
