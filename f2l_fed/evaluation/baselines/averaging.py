"""Parts of all baselines: rounds of local training and averaging, steps, and heads at a site."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from f2l_fed.core.random_streams import generator_for
from f2l_fed.evaluation.arms import HeldOutSite
from f2l_fed.evaluation.baselines.baseline import (
    NUMBER_BYTES,
    CommonWork,
    Cost,
    Settings,
    Start,
    TrainingSite,
)
from f2l_fed.local_training.adapted_network import adapted_head
from f2l_fed.local_training.finetune import clip_by_norm
from f2l_fed.local_training.turns import drawn_turn

LocalTraining = Callable[[Tensor, TrainingSite, int, torch.Generator], Tensor]
"""What was sent, the site, its number of steps and a source of chance, to what it returns."""


def averaged_rounds(work: CommonWork, purpose: str, start: Tensor, train: LocalTraining) -> Tensor:
    """The plain average of all sites' numbers after every round.

    Args:
        work: Sites and rounds.
        purpose: Name of the random streams.
        start: (P,) float32, the numbers that are sent in the first round.
        train: The local training.

    Returns:
        (P,) float32.
    """
    sent = start
    for number in range(1, work.rounds + 1):
        returned = [
            train(
                sent,
                site,
                work.steps(number),
                generator_for(work.lineage, "baseline", purpose, number, site.name),
            )
            for site in work.sites
        ]
        sent = torch.stack(returned).mean(0)
    return sent


def descend(
    work: CommonWork, start: Tensor, gradient: Callable[[Tensor], Tensor], steps: int, lr: float
) -> Tensor:
    """Steps of gradient descent with the momentum and shortened gradients of the body's training.

    Args:
        work: Momentum and the largest length of a gradient.
        start: (P,) float32; not changed.
        gradient: The gradient at some numbers, drawn anew at each call.
        steps: Number of steps.
        lr: Learning rate.
    """
    theta, momentum = start.detach().clone(), torch.zeros_like(start)
    for _ in range(steps):
        clipped = clip_by_norm(gradient(theta), work.episodes.max_gradient_norm)
        momentum.mul_(work.episodes.momentum).add_(clipped)
        theta.sub_(momentum, alpha=lr)
    return theta


def supervised(
    work: CommonWork, start: Tensor, site: TrainingSite, steps: int, lr: float, rng: torch.Generator
) -> Tensor:
    """A whole network after steps on a site's own labels.

    A step has as many examples as an episode, all of them turned and inverted alike, as there.

    Args:
        work: Batch, turns and inversion.
        start: (D,) float32.
        site: The site.
        steps: Number of steps.
        lr: Learning rate.
        rng: Draws batches and turns.
    """
    network = work.network

    def gradient(weights: Tensor) -> Tensor:
        batch = torch.randperm(len(site.y), generator=rng)[: work.batch(site)]
        x = drawn_turn(site.x[batch], work.episodes.turns, work.episodes.inversion, rng)
        theta = weights.detach().clone().requires_grad_()
        loss = functional.cross_entropy(network.training_logits(theta, x), site.y[batch])
        (found,) = torch.autograd.grad(loss, theta)
        return found

    return network.calibrated(descend(work, start, gradient, steps, lr), site.x)


def logistic_start(work: CommonWork, settings: Settings, body: Tensor, site: HeldOutSite) -> Start:
    """A body with the logistic head that a held-out site solves on it; (B,) float32.

    Its local steps are pulled to it, as those of the method are.
    """
    own, head = work.body_of(site), replace(work.head, context=settings.strength)
    return Start(
        weights=own.join(body, adapted_head(own, body, None, *site.train, head)),
        pull=pull(work, site),
    )


def pull(work: CommonWork, site: HeldOutSite) -> float:
    """Strength of the local steps' pull to a start with a solved head."""
    return work.head.step_pull / len(site.train[1])


def cost_of(work: CommonWork, numbers: int, gradients: int = 1) -> Cost:
    """The cost of exchanging so many numbers in every round.

    Args:
        work: Rounds and steps.
        numbers: Numbers that a site receives and sends in a round.
        gradients: Gradients that a step takes.
    """
    steps = sum(work.steps(number) for number in range(1, work.rounds + 1))
    size = NUMBER_BYTES * numbers
    return Cost(bytes_up=size, bytes_down=size, local_steps=gradients * steps)
