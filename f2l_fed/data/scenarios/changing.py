"""The changing scenario: sites join, leave, get further classes or another camera."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from f2l_fed.core.random_streams import stream
from f2l_fed.data.image_transforms import Camera, draw_lens, draw_quarter_turn
from f2l_fed.data.scenarios.balanced import plan_seen_classes
from f2l_fed.data.scenarios.config import SplitConfig
from f2l_fed.data.scenarios.pool import Pool
from f2l_fed.data.scenarios.site_plan import Change, PlannedChange, ScenarioPlan, SitePlan
from f2l_fed.errors import DataError

_SCHEDULE: tuple[tuple[int, Change], ...] = (
    (2, "joined"),
    (3, "left"),
    (4, "classes"),
    (5, "camera"),
    (6, "joined"),
    (6, "left"),
    (7, "classes"),
    (8, "camera"),
)
"""Numbers of rounds after which a group of sites changes, and how."""

_SITES_A_GROUP = 20
"""Number of sites for each one that a group has."""

_FURTHER = 2
"""Number of classes that a site gets."""


def plan_changing(
    pool: Pool, *, sites: int, held_out: int, seed: int, config: SplitConfig
) -> ScenarioPlan:
    """Gives every site some of the classes, with one meaning of labels, and plans what changes.

    Another camera is a flawed one in the place of none.

    Args:
        pool: All examples.
        sites: Training sites, those that join included.
        held_out: Held-out sites.
        seed: The run's seed.
        config: Settings.

    Raises:
        DataError: If there are too few sites or classes, or too few examples of a class.
    """
    kind = _Kind(first=_no_camera, other=lambda rng, _: draw_lens(rng), shared_labels=True)
    return _planned(pool, kind, sites, held_out, seed, config)


def plan_changing_few_shot(
    pool: Pool, *, sites: int, held_out: int, seed: int, config: SplitConfig
) -> ScenarioPlan:
    """Gives every site classes, a label order and a camera of its own, and plans what changes.

    The arguments and errors are those of `plan_changing`; held-out sites have known classes.
    """

    def first(rng: np.random.Generator) -> Camera | None:
        return draw_quarter_turn(rng, pool.shape)

    def other(rng: np.random.Generator, before: Camera | None) -> Camera | None:
        drawn = first(rng)
        while drawn == before:
            drawn = first(rng)
        return drawn

    kind = _Kind(first=first, other=other, shared_labels=False)
    return _planned(pool, kind, sites, held_out, seed, config)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """A kind of changing federation: of shared labels, or of own ones.

    Args:
        first: Draws the camera that a site begins with.
        other: Draws another camera in the place of one.
        shared_labels: Whether a label means the same at every site.
    """

    first: Callable[[np.random.Generator], Camera | None]
    other: Callable[[np.random.Generator, Camera | None], Camera | None]
    shared_labels: bool


def _no_camera(_: np.random.Generator) -> Camera | None:
    return None


def _planned(
    pool: Pool, kind: _Kind, sites: int, held_out: int, seed: int, config: SplitConfig
) -> ScenarioPlan:
    ways = config.usual_ways
    most, size = ways + _FURTHER, max(1, sites // _SITES_A_GROUP)
    _require(pool, "classes", most, pool.classes)
    _require(pool, "training sites", len(_SCHEDULE) + 1, sites)
    pool.require_images("the sites of a changing federation get other cameras, which needs images")

    def draw(
        rng: np.random.Generator, classes: Sequence[int]
    ) -> tuple[Sequence[int], Camera | None]:
        chosen = rng.permutation(classes)[:most].tolist()
        return chosen, kind.first(rng)

    whole, seen, _ = plan_seen_classes(
        pool, range(pool.classes), draw, sites=sites, held_out=held_out, seed=seed, config=config
    )

    def cut(site: SitePlan, count: int) -> SitePlan:
        known = site.classes[:count]
        return replace(
            site,
            classes=tuple(range(pool.classes)) if kind.shared_labels else known,
            train=site.train[np.isin(pool.y[site.train], known)],
            test=site.test[np.isin(pool.y[site.test], known)],
        )

    # The last sites change, so that the first ones are the same in every federation of the size.
    first = [cut(site, ways) for site in whole]
    changes = []
    for number, (after, what) in enumerate(_SCHEDULE, 1):
        for row in range(sites - number * size, sites - (number - 1) * size):
            site = first[row]
            if what == "classes":
                site = cut(whole[row], most)
            elif what == "camera":
                rng = stream(seed, "another camera", site.name)
                site = replace(site, camera=kind.other(rng, site.camera))
            changes.append(PlannedChange(after=after, what=what, site=site))
    last = {site.name: site for site in (*first, *(change.site for change in changes))}
    rows = np.concatenate([part for site in last.values() for part in (site.train, site.test)])
    return ScenarioPlan(
        training=tuple(first),
        seen=tuple(cut(site, ways) for site in seen),
        unseen=None,
        shared_labels=kind.shared_labels,
        disjoint=len(np.unique(rows)) == len(rows),
        changes=tuple(changes),
    )


def _require(pool: Pool, what: str, needed: int, got: int) -> None:
    """Raises DataError if there are fewer of something than needed."""
    if got < needed:
        raise DataError(
            f"there are too few {what} for a changing federation",
            where=", ".join(pool.names),
            expected=f"at least {needed}",
            got=str(got),
            remedy="Choose another scenario, or change these numbers.",
        )
