"""Fine-tuning on a site's own examples by plain SGD, and its accuracy step by step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from f2l_fed.core.placement import moved
from f2l_fed.local_training.config import Recipe
from f2l_fed.targets.target import Target

STEPS = (0, 1, 5, 10, 20, 50)
"""Numbers of local steps after which a start is measured."""


def iterates(
    target: Target,
    weights: Tensor,
    x: Tensor,
    y: Tensor,
    recipe: Recipe,
    rng: torch.Generator,
    *,
    pull: float = 0.0,
    falling: bool = False,
) -> Iterator[Tensor]:
    """Yields the weights before the first step and after every step.

    Args:
        target: The network.
        weights: (D,) float32, the start; not changed.
        x: (n, *input_shape) float32.
        y: (n,) int64.
        recipe: Settings of the descent; ``steps`` is the number of steps.
        rng: Draws the batches: reshuffled whenever the examples are used up.
        pull: Strength of a penalty on the way from the start, pull / 2 * |theta - weights|².
        falling: Whether the learning rate falls linearly, to zero after the last step.

    Yields:
        (D,) float32 on the target's device, a detached tensor that the next step overwrites: copy
        what you keep. The statistics of batch normalisation are those of the start; see
        `Target.calibrated`. No step waits for the device.
    """
    target.require(weights, x, y)
    weights, x, y = (tensor.to(target.device) for tensor in (weights, x, y))
    theta = weights.detach().clone().requires_grad_()
    momentum = torch.zeros_like(weights)
    order = torch.empty(0, dtype=torch.int64)
    size = min(recipe.batch or len(x), len(x))
    yield theta.detach()
    for step in range(recipe.steps):
        if size == len(x):
            batch_x, batch_y = x, y
        else:
            if len(order) < size:
                order = moved(torch.randperm(len(x), generator=rng), target.device)
            batch_x, batch_y, order = x[order[:size]], y[order[:size]], order[size:]
        loss = functional.cross_entropy(target.training_logits(theta, batch_x), batch_y)
        (gradient,) = torch.autograd.grad(loss, theta)
        with torch.no_grad():
            momentum.mul_(recipe.momentum).add_(clip_by_norm(gradient, recipe.max_gradient_norm))
            if pull:
                momentum.add_(theta - weights, alpha=pull)
            theta.sub_(momentum, alpha=recipe.lr * (1 - falling * step / recipe.steps))
        yield theta.detach()


def clip_by_norm(gradient: Tensor, max_norm: float) -> Tensor:
    """A gradient, scaled down to a norm if it is longer; 0 for no limit.

    >>> clip_by_norm(torch.tensor([3.0, 4.0]), 1.0).tolist()
    [0.6000000238418579, 0.800000011920929]
    """
    if not max_norm:
        return gradient
    norm = gradient.norm()
    # Without asking for the number, so that a GPU is not waited for. NaN stays where it is.
    return gradient * torch.where(norm > max_norm, max_norm / norm, 1.0)


def finetune(
    target: Target,
    weights: Tensor,
    x: Tensor,
    y: Tensor,
    recipe: Recipe,
    rng: torch.Generator,
    *,
    pull: float = 0.0,
    falling: bool = False,
) -> Tensor:
    """The weights after all steps of the recipe; (D,) float32. See `iterates`.

    After one step or more, batch normalisation has the statistics of the examples. Pulled steps
    that end above their start, in the loss that they descend on, are not taken.
    """
    *_, last = iterates(target, weights, x, y, recipe, rng, pull=pull, falling=falling)
    made = _taken(target, weights, last, x, y, pull) if recipe.steps else last
    return made.to(weights.device, copy=True)


def _taken(
    target: Target, start: Tensor, last: Tensor, x: Tensor, y: Tensor, pull: float
) -> Tensor:
    """The network after one step or more; its start where pulled steps have made it worse."""
    made = target.calibrated(last, x)
    if not pull:
        return made
    start = start.to(made.device)
    before, after = (loss_and_accuracy(target, one, x, y)[0] for one in (start, made))
    worse = not after + pull / 2 * float((made - start).square().sum()) <= before
    return start if worse else made


@torch.no_grad()
def loss_and_accuracy(target: Target, weights: Tensor, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Mean cross-entropy (nats) and share of correct predictions in [0, 1]."""
    logits = target.logits(weights, x)
    y = y.to(logits.device)
    loss = functional.cross_entropy(logits, y)
    return float(loss), float((logits.argmax(1) == y).float().mean())


@torch.no_grad()
def losses_of(target: Target, networks: Iterable[Tensor], x: Tensor, y: Tensor) -> list[float]:
    """Mean cross-entropy (nats) of each of some networks; the target's device is waited for once.

    Args:
        target: The network.
        networks: (D,) float32 each.
        x: (n, *input_shape) float32, on the target's device.
        y: (n,) int64, there too.
    """
    made = (target.logits(weights.to(target.device), x) for weights in networks)
    losses = [functional.cross_entropy(logits, y) for logits in made]
    return torch.stack(losses).tolist() if losses else []


def accuracy_after(
    target: Target,
    weights: Tensor,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    recipe: Recipe,
    rng: torch.Generator,
    steps: Sequence[int] = STEPS,
    *,
    pull: float = 0.0,
) -> list[float]:
    """Test accuracy after each number of local steps; ``recipe.steps`` is not used."""
    target.require(weights, *test)
    measured = set(steps)
    whole = replace(recipe, steps=max(steps))
    found = {
        step: loss_and_accuracy(
            target, _taken(target, weights, theta, *train, pull) if step else theta, *test
        )[1]
        for step, theta in enumerate(iterates(target, weights, *train, whole, rng, pull=pull))
        if step in measured
    }
    return [found[step] for step in steps]
