"""Common parts of the scenarios whose sites all have the same number of examples of a class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from f2l_fed.core.random_streams import stream
from f2l_fed.data.array_checks import IntArray
from f2l_fed.data.image_transforms import Camera
from f2l_fed.data.scenarios.config import SplitConfig
from f2l_fed.data.scenarios.pool import Deck, Pool
from f2l_fed.data.scenarios.site_plan import SitePlan, held_out_parts
from f2l_fed.errors import DataError

DrawTask = Callable[[np.random.Generator, Sequence[int]], tuple[Sequence[int], Camera | None]]
"""Draws a site's classes out of some, in its own label order, and its camera."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Decks:
    train: Deck
    validation: Deck
    held_out: IntArray


def plan_seen_classes(
    pool: Pool,
    classes: Sequence[int],
    draw: DrawTask,
    *,
    sites: int,
    held_out: int,
    seed: int,
    config: SplitConfig,
) -> tuple[tuple[SitePlan, ...], tuple[SitePlan, ...], bool]:
    """Plans the training sites and the held-out sites with the same classes.

    Args:
        pool: All examples.
        classes: Pool classes to draw from.
        draw: Draws a site's task.
        sites: Training sites.
        held_out: Held-out sites.
        seed: The run's seed.
        config: Settings.

    Returns:
        Training sites, held-out sites, and whether no two training sites share an example.

    Raises:
        DataError: If there are too few examples of a class.
    """
    local = {"shots": config.shots, "validation_per_class": config.further_per_class}
    needs = {name: count for name, count in local.items() if count}
    require_examples(pool, classes, needs | held_out_needs(config))
    decks = {label: _class_decks(pool, label, seed, config) for label in classes}
    training = tuple(
        _training_site(f"site-{index:03d}", decks, draw, seed, config) for index in range(sites)
    )
    reserved = {label: deck.held_out for label, deck in decks.items()}
    seen = plan_held_out_sites("seen", held_out, reserved, draw, seed, config)
    shared = any(deck.train.ran_out or deck.validation.ran_out for deck in decks.values())
    return training, seen, not shared


def _class_decks(pool: Pool, label: int, seed: int, config: SplitConfig) -> _Decks:
    parts = held_out_parts(
        pool,
        label,
        fraction=config.held_out_fraction,
        at_least=config.held_out_shots + config.test_per_class,
        spare=config.shots + config.further_per_class,
        seed=seed,
    )
    # Two decks, so that what one site validates on is never what another trains on.
    local = config.shots + config.further_per_class
    cut = len(parts.training) * config.further_per_class // local
    return _Decks(
        train=Deck(parts.training[cut:], stream(seed, "train", label)),
        validation=Deck(parts.training[:cut], stream(seed, "validation", label)),
        held_out=parts.held_out,
    )


def _training_site(
    name: str, decks: dict[int, _Decks], draw: DrawTask, seed: int, config: SplitConfig
) -> SitePlan:
    rng = stream(seed, "site", name)
    classes, camera = draw(rng, list(decks))
    train = [decks[label].train.deal(config.shots) for label in classes]
    test = [decks[label].validation.deal(config.further_per_class) for label in classes]
    return SitePlan(
        name=name,
        classes=tuple(classes),
        train=rng.permutation(np.concatenate(train)),
        test=np.concatenate(test),
        camera=camera,
    )


def plan_held_out_sites(
    kind: str,
    sites: int,
    rows: dict[int, IntArray],
    draw: DrawTask,
    seed: int,
    config: SplitConfig,
) -> tuple[SitePlan, ...]:
    """Plans held-out sites of one kind.

    Args:
        kind: First part of their names, "seen" or "unseen".
        sites: How many.
        rows: Held-out rows by pool class.
        draw: Draws a site's task.
        seed: The run's seed.
        config: Settings.
    """

    def site(name: str) -> SitePlan:
        rng = stream(seed, "site", name)
        classes, camera = draw(rng, list(rows))
        count = config.held_out_shots + config.test_per_class
        chosen = np.stack([rng.permutation(rows[label])[:count] for label in classes])
        return SitePlan(
            name=name,
            classes=tuple(classes),
            train=rng.permutation(chosen[:, : config.held_out_shots].ravel()),
            test=chosen[:, config.held_out_shots :].ravel(),
            camera=camera,
        )

    return tuple(site(f"{kind}-{index:03d}") for index in range(sites))


def held_out_needs(config: SplitConfig) -> dict[str, int]:
    """The settings that say how many examples of a class a held-out site needs."""
    return {"held_out_shots": config.held_out_shots, "test_per_class": config.test_per_class}


def require_examples(pool: Pool, classes: Sequence[int], needs: dict[str, int]) -> None:
    """Requires enough examples of every class.

    Args:
        pool: All examples.
        classes: Pool classes.
        needs: Examples of a class that are needed, by the setting that asks for them.

    Raises:
        DataError: If a class has fewer.
    """
    needed = sum(needs.values())
    for label in classes:
        count = len(pool.rows(label))
        if count < needed:
            terms = " + ".join(f"{value} {name}" for name, value in needs.items())
            raise DataError(
                "there are too few examples",
                where=pool.describe(label),
                expected=f"at least {needed} ({terms})",
                got=str(count),
                remedy="Lower these settings or add examples.",
            )
