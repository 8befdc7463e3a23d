"""Regression of a velocity, with the best weights chosen on validation records."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Any, TypeVar

import torch
from torch import Tensor

from f2l_fed.core.placement import CPU, moved
from f2l_fed.flow.config import FlowConfig
from f2l_fed.flow.film_network import FilmNetwork

CHECKS = 16
"""Examples that are made of each validation site."""

N = TypeVar("N", bound=FilmNetwork)


@dataclass(frozen=True, slots=True)
class RegressionBatch:
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

    def errors(self, network: FilmNetwork) -> Tensor:
        """(n, k) squared errors; differentiable."""
        error: Tensor = network(self.t, self.x, self.context, self.known) - self.velocity
        return error.square()

    def error(self, network: FilmNetwork) -> Tensor:
        """Mean squared error, per coordinate; differentiable."""
        return self.errors(network).mean()

    def to(self, device: torch.device) -> RegressionBatch:
        """The same examples on a device."""
        parts = (self.t, self.x, self.context, self.known, self.velocity)
        return RegressionBatch(*(moved(part, device) for part in parts))

    def __getitem__(self, rows: slice) -> RegressionBatch:
        return RegressionBatch(
            self.t[rows], self.x[rows], self.context[rows], self.known[rows], self.velocity[rows]
        )


@dataclass(frozen=True, slots=True)
class TrainingCurve:
    """The course of a regression.

    Args:
        first: Validation error of the initial weights.
        best: Validation error of the best ones, which the network has now.
        step: Gradient step at which these were reached; 0 if none was better than the first.
        error: Standard error of ``first - best`` over the validation sites; infinite for one.
    """

    first: float
    best: float
    step: int
    error: float = inf


def _nothing(_: Any) -> None:
    return


@dataclass(frozen=True, slots=True, kw_only=True)
class VelocityTraining:
    """The execution of gradient steps: by default in this process, from the first to the last.

    Several processes that share the steps are given the same arguments and draw the same examples;
    each takes its part of every batch, so that the sum of their work is what one would do, up to
    the order of summation.

    Args:
        rank: Which process this is, from 0.
        count: How many there are.
        merge: Averages the gradients of a network over all processes.
        keep: Gets the state after every validation, from which training can resume.
        last: The last such state, to resume from; None to begin.
    """

    rank: int = 0
    count: int = 1
    merge: Callable[[FilmNetwork], None] = _nothing
    keep: Callable[[dict[str, Any]], None] = _nothing
    last: Mapping[str, Any] | None = None

    def descend(self, network: FilmNetwork, batch: RegressionBatch) -> None:
        """Leaves the gradient of the mean error over a batch in a network's parameters."""
        part = batch[self.rank :: self.count]
        share = len(part.t) * self.count / len(batch.t)
        (part.error(network) * share if self.count > 1 else part.error(network)).backward()
        self.merge(network)


def regress(
    network: FilmNetwork,
    batch: Callable[[], RegressionBatch],
    validate: Callable[[], float],
    config: FlowConfig,
    *,
    rng: torch.Generator | None = None,
    training: VelocityTraining | None = None,
) -> TrainingCurve:
    """Fits a network in place.

    Args:
        network: Its weights are the first candidate.
        batch: Draws the examples of one gradient step.
        validate: Error of the network as it is on the validation records, always the same ones.
        config: Steps, learning rate and patience.
        rng: Draws the batches; kept with the rest where training is resumed.
        training: Execution of the steps.
    """
    training = training or VelocityTraining()
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=config.lr, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, config.steps))
    begun, last = 1, training.last
    if last is None:
        first = best = _without_gradients(validate)
        best_step, best_state = 0, copy.deepcopy(network.state_dict())
    else:
        network.load_state_dict(last["network"])
        optimiser.load_state_dict(last["optimiser"])
        schedule.load_state_dict(last["schedule"])
        first, best, best_step = last["first"], last["best"], last["best_step"]
        best_state, begun = last["best_state"], last["step"] + 1
        if rng is not None:
            rng.set_state(last["rng"])
    for step in range(begun, config.steps + 1):
        patience = config.patience if best_step else min(config.patience, config.look)
        if step > best_step + patience * config.check_every:
            break
        optimiser.zero_grad()
        training.descend(network, batch())
        optimiser.step()
        schedule.step()
        if step % config.check_every == 0 or step == config.steps:
            loss = _without_gradients(validate)
            if loss < best:
                best, best_step = loss, step
                best_state = copy.deepcopy(network.state_dict())
            training.keep(
                {
                    "step": step,
                    "first": first,
                    "best": best,
                    "best_step": best_step,
                    "best_state": best_state,
                    "network": network.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "schedule": schedule.state_dict(),
                    "rng": None if rng is None else rng.get_state(),
                }
            )
    network.load_state_dict(best_state)
    network.requires_grad_(False)
    return TrainingCurve(first, best, best_step)


@torch.no_grad()
def _without_gradients(validate: Callable[[], float]) -> float:
    return validate()


def fit_to_examples(
    network: FilmNetwork,
    examples: Callable[[Tensor], RegressionBatch],
    count: int,
    config: FlowConfig,
    rng: torch.Generator,
    *,
    group: int = 1,
    training: VelocityTraining | None = None,
    device: torch.device = CPU,
) -> TrainingCurve:
    """Fits a network in place, with some sites for validation; see `regress`.

    Args:
        network: Its weights are the first candidate.
        examples: Makes one example of each record whose index it gets.
        count: Number of records.
        config: Schedule, batch, and share of the validation sites.
        rng: Draws sites and batches.
        group: Consecutive records that belong to one site.
        training: Execution of the steps.
        device: The network's; examples are made on the CPU and moved.
    """
    validation, train = validation_split(count, config.held_out, rng, group=group)
    # The same noise and times at every validation, so that errors differ by the weights alone.
    check = examples(validation.repeat_interleave(max(1, CHECKS // group))).to(device)

    def batch() -> RegressionBatch:
        picks = torch.randint(len(train), (config.batch,), generator=rng)
        return examples(train[picks]).to(device)

    def validate() -> float:
        return float(check.error(network))

    @torch.no_grad()
    def by_site() -> Tensor:
        errors = check.errors(network).double()
        return errors.view(len(validation) // group, -1).mean(1)

    before = by_site()
    course = regress(network, batch, validate, config, rng=rng, training=training)
    gain = before - by_site()
    return replace(course, error=float(gain.std()) / len(gain) ** 0.5 if len(gain) > 1 else inf)


def validation_split(
    count: int, share: float, rng: torch.Generator, *, group: int = 1
) -> tuple[Tensor, Tensor]:
    """Indices of validation and of training records; at least one site of each.

    Args:
        count: Number of records.
        share: Share of the sites that are for validation.
        rng: Draws the sites.
        group: Consecutive records that belong to one site.
    """
    sites = count // group
    order = torch.randperm(sites, generator=rng)
    records = (order[:, None] * group + torch.arange(group)).flatten()
    kept = group * min(max(1, round(share * sites)), sites - 1)
    return records[:kept], records[kept:]


def seeded(rng: torch.Generator, build: Callable[[], N]) -> N:
    """Builds a network with initial weights that depend on ``rng`` and on nothing else."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=rng)))
        return build()
