"""The camera scenario: every site sees all classes through its own flawed camera."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from f2l_fed.data.image_transforms import Camera, draw_lens
from f2l_fed.data.scenarios.balanced import plan_seen_classes
from f2l_fed.data.scenarios.config import SplitConfig
from f2l_fed.data.scenarios.pool import Pool
from f2l_fed.data.scenarios.site_plan import ScenarioPlan


def plan_camera(
    pool: Pool, *, sites: int, held_out: int, seed: int, config: SplitConfig
) -> ScenarioPlan:
    """Gives every site all classes, with one meaning of labels, through its own flawed camera.

    Args:
        pool: All examples, images.
        sites: Training sites.
        held_out: Held-out sites.
        seed: The run's seed.
        config: Settings.

    Raises:
        DataError: If the examples are no images, or there are too few of a class.
    """
    pool.require_images("the camera scenario needs images")

    def draw(
        rng: np.random.Generator, classes: Sequence[int]
    ) -> tuple[Sequence[int], Camera | None]:
        return classes, draw_lens(rng)

    training, seen, disjoint = plan_seen_classes(
        pool, range(pool.classes), draw, sites=sites, held_out=held_out, seed=seed, config=config
    )
    return ScenarioPlan(
        training=training, seen=seen, unseen=None, shared_labels=True, disjoint=disjoint
    )
