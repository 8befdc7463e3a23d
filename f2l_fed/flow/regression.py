"""Regression of a velocity, with the best weights chosen on records kept aside."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from f2l_fed.flow.config import FlowConfig
from f2l_fed.flow.network import FilmNetwork

CHECKS = 16
"""Examples that are made of each site kept aside."""

N = TypeVar("N", bound=FilmNetwork)


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples of a velocity.

    Args:
        t: (n,) float32 in [0, 1].
        x: (n, k) float32, states at these times.
        context: (n, k) float32.
        known: (n,) float32, 0 where the context is withheld, else 1.
        velocity: (n, k) float32, to be predicted.
    """

    t: Tensor
    x: Tensor
    context: Tensor
    known: Tensor
    velocity: Tensor

    def error(self, network: FilmNetwork) -> Tensor:
        """Mean squared error, per coordinate; differentiable."""
        error: Tensor = network(self.t, self.x, self.context, self.known) - self.velocity
        return error.square().mean()


@dataclass(frozen=True, slots=True)
class Course:
    """How a regression went.

    Args:
        first: What `look` said of the weights it began with.
        best: What it said of the best ones, which the network has now.
        step: Gradient step at which these were reached; 0 if none was better than the first.
    """

    first: float
    best: float
    step: int


def regress(
    network: FilmNetwork,
    batch: Callable[[], Batch],
    look: Callable[[], float],
    config: FlowConfig,
) -> Course:
    """Fits a network in place.

    Args:
        network: Its weights are the first candidate.
        batch: Draws the examples of one gradient step.
        look: Error of the network as it is, on records kept aside; the same at every look.
        config: Steps, learning rate and patience.
    """
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=config.lr, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, config.steps))
    first = best = _quietly(look)
    best_step, best_state = 0, copy.deepcopy(network.state_dict())
    for step in range(1, config.steps + 1):
        optimiser.zero_grad()
        batch().error(network).backward()
        optimiser.step()
        schedule.step()
        if step % config.check_every == 0 or step == config.steps:
            loss = _quietly(look)
            if loss < best:
                best, best_step = loss, step
                best_state = copy.deepcopy(network.state_dict())
            elif step >= best_step + config.patience * config.check_every:
                break
    network.load_state_dict(best_state)
    network.requires_grad_(False)
    return Course(first, best, best_step)


@torch.no_grad()
def _quietly(look: Callable[[], float]) -> float:
    return look()


def fit_to_examples(
    network: FilmNetwork,
    examples: Callable[[Tensor], Batch],
    count: int,
    config: FlowConfig,
    rng: torch.Generator,
    *,
    group: int = 1,
) -> Course:
    """Fits a network in place, with the sites that are kept aside as judges; see `regress`.

    Args:
        network: Its weights are the first candidate.
        examples: Makes one example of each record whose index it gets.
        count: Number of records.
        config: Schedule, batch, and share of sites kept aside.
        rng: Draws sites and batches.
        group: Consecutive records that belong to one site.
    """
    kept, train = kept_aside(count, config.held_out, rng, group=group)
    # The same noise and times at every look, so that looks differ by the weights alone.
    check = examples(kept.repeat_interleave(max(1, CHECKS // group)))

    def batch() -> Batch:
        return examples(train[torch.randint(len(train), (config.batch,), generator=rng)])

    return regress(network, batch, lambda: float(check.error(network)), config)


def kept_aside(
    count: int, share: float, rng: torch.Generator, *, group: int = 1
) -> tuple[Tensor, Tensor]:
    """Indices of the records to choose by and of those to fit on; at least one site of each.

    Args:
        count: Number of records.
        share: Of the sites, to keep aside.
        rng: Draws the sites.
        group: Consecutive records that belong to one site.
    """
    sites = count // group
    order = torch.randperm(sites, generator=rng)
    records = (order[:, None] * group + torch.arange(group)).flatten()
    kept = group * min(max(1, round(share * sites)), sites - 1)
    return records[:kept], records[kept:]


def seeded(rng: torch.Generator, build: Callable[[], N]) -> N:
    """Builds a network whose initial weights depend on ``rng`` and on nothing else."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=rng)))
        return build()
