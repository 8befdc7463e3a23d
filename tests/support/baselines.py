"""Work for baselines that takes a fraction of a second: few sites, vectors of a few classes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from f2l_fed.evaluation.arms import HeldOutSite
from f2l_fed.evaluation.baselines.baseline import CommonWork, TrainingSite
from f2l_fed.local_training.config import EpisodesConfig, HeadConfig, Recipe
from f2l_fed.targets import build_target
from f2l_fed.targets.body import Body
from tests.support.small import rng

CLASSES, FEATURES = 3, 8
EPISODES = EpisodesConfig(first=12, steps=6, support=2, query=4)


def small_work(
    *, sites: int = 4, rounds: int = 3, episodes: EpisodesConfig = EPISODES
) -> CommonWork:
    """Work on tasks that share a subspace in which classes differ."""
    network = build_target("mlp", (FEATURES,), CLASSES)
    return CommonWork(
        lineage="small/0",
        body=Body.of(network),
        sites=tuple(
            TrainingSite(name=f"site-{number}", x=x, y=y)
            for number in range(sites)
            for x, y in [small_task(number, 40)]
        ),
        rounds=rounds,
        episodes=episodes,
        head=HeadConfig(pairs=2),
        local=Recipe(steps=50, lr=0.05, momentum=0.9, batch=0),
    )


def small_task(number: int, per_class: int) -> tuple[Tensor, Tensor]:
    """Examples of one task: its own labels of four clouds, in two coordinates out of eight."""
    draws = rng(number)
    clouds = 3 * functional.one_hot(torch.arange(4), 4).float()
    own = clouds[torch.randperm(4, generator=draws)[:CLASSES]]
    y = torch.arange(CLASSES).repeat_interleave(per_class)
    noise = torch.randn(len(y), FEATURES, generator=draws)
    noise[:, :4] += own[y]
    return noise, y


def small_held_out(number: int = 50, shots: int = 5) -> HeldOutSite:
    """A site that no training has seen, on a task like those of the others."""
    x, y = small_task(number, shots + 60)
    few = (torch.arange(len(y)) % (shots + 60)) < shots
    return HeldOutSite(name=f"held-{number}", train=(x[few], y[few]), test=(x[~few], y[~few]))


def other_steps(work: CommonWork, first: int, steps: int) -> CommonWork:
    """The same work with other numbers of local steps."""
    return replace(work, episodes=replace(work.episodes, first=first, steps=steps))
