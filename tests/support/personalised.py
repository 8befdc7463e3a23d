"""Work for baselines with shared labels that takes a fraction of a second."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from f2l_fed.evaluation.baselines.baseline import TrainingSite
from f2l_fed.evaluation.baselines.personalised.method import (
    PersonalisedBaseline,
    PersonalisedWork,
)
from f2l_fed.targets import build_target
from tests.support.small import rng

CLASSES, FEATURES = 3, 8
SIZES = (40, 20, 30, 50, 10)


def small_personalised_work(*, rounds: int = 3, **other: Any) -> PersonalisedWork:
    """Five sites of different sizes, each with two of three classes in most of its examples."""
    return PersonalisedWork(
        lineage="small/0",
        network=build_target("mlp", (FEATURES,), CLASSES),
        sites=tuple(
            TrainingSite(name=f"site-{number}", x=x, y=y)
            for number, size in enumerate(SIZES)
            for x, y in [small_examples(number, size)]
        ),
        rounds=rounds,
        measured=tuple(range(1, rounds + 1)),
        **other,
    )


def small_examples(number: int, size: int) -> tuple[Tensor, Tensor]:
    """A site's examples: clouds that mean the same everywhere, in a mix of its own."""
    draws = rng(number)
    mix = torch.full((CLASSES,), 0.45)
    mix[number % CLASSES] = 0.1
    y = mix.multinomial(size, replacement=True, generator=draws)
    y[:CLASSES] = torch.arange(CLASSES)
    return 2 * functional.one_hot(y, FEATURES) + torch.randn(size, FEATURES, generator=draws), y


def networks_of(baseline: PersonalisedBaseline, work: PersonalisedWork, **other: Any) -> Tensor:
    """(S, D) float32, what the sites have after the last round, with some other settings."""
    *_, (_, last) = baseline.train(work, replace(baseline.settings, **other))
    return last
