"""DP-SGD: gradient descent that hides from its result whether any one example took part."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.nn import functional

from f2l_fed.core.placement import moved
from f2l_fed.errors import TargetError
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.finetune import clip_by_norm
from f2l_fed.targets import Target

_CHUNK_NUMBERS = 2**22


def sampling_rate(recipe: Recipe, count: int) -> float:
    """The probability with which an example takes part in a step.

    >>> sampling_rate(Recipe(steps=1, batch=50), 200)
    0.25
    """
    return min(recipe.batch or count, count) / count


def private_update(
    target: Target,
    weights: Tensor,
    x: Tensor,
    y: Tensor,
    recipe: Recipe,
    *,
    noise_multiplier: float,
    max_norm: float,
    rng: torch.Generator,
) -> Tensor:
    """The update of a network by a recipe with differentially private gradients.

    Every example takes part in a step independently with probability `sampling_rate`; its gradient
    is clipped to ``max_norm``, and the sum gets normal noise. The number of examples counts as
    known. The rest of the recipe, momentum and the limit of the gradient, works on the noised mean.

    Args:
        target: The network, without batch normalisation.
        weights: (D,) float32, the start.
        x: (n, *input_shape) float32.
        y: (n,) int64.
        recipe: The recipe.
        noise_multiplier: Standard deviation of the noise in every coordinate of the sum, over
            ``max_norm``.
        max_norm: Largest Euclidean length of one example's gradient.
        rng: Draws examples and noise; seed it from the operating system, as for
            `f2l_fed.privacy.gaussian_mechanism.add_noise`.

    Returns:
        (D,) float32, the change.

    Raises:
        TargetError: If the network has batch normalisation, so that no gradient is of one example.

    Reference:
        Abadi et al.: Deep learning with differential privacy. CCS 2016, algorithm 1.
    """
    if target.statistics:
        raise TargetError(
            "a network with batch normalisation has no gradients of single examples",
            where=target.name,
            remedy="Use a target with group normalisation, or none.",
        )
    rate = sampling_rate(recipe, len(x))
    device, home = target.device, weights.device
    weights, x, y = (tensor.to(device) for tensor in (weights, x, y))
    theta, momentum = weights.clone(), torch.zeros_like(weights)
    for _ in range(recipe.steps):
        drawn = moved((torch.rand(len(x), generator=rng) < rate).nonzero()[:, 0], device)
        total = _clipped_sum(target, theta, x[drawn], y[drawn], max_norm)
        noise = moved(torch.randn(total.shape, generator=rng, dtype=torch.float64), device)
        mean = ((total + noise_multiplier * max_norm * noise) / (rate * len(x))).float()
        momentum = recipe.momentum * momentum + clip_by_norm(mean, recipe.max_gradient_norm)
        theta = theta - recipe.lr * momentum
    return (theta - weights).to(home)


def _clipped_sum(target: Target, theta: Tensor, x: Tensor, y: Tensor, max_norm: float) -> Tensor:
    """(D,) float64, the sum of the examples' gradients, none longer than ``max_norm``."""
    total = torch.zeros(theta.shape, dtype=torch.float64, device=theta.device)
    for gradients in _gradients(target, theta, x, y):
        gradients = gradients.double()
        lengths = gradients.norm(dim=1)
        # An example that overflows adds nothing: an error would disclose it.
        share = (max_norm / lengths.clamp(min=max_norm)).where(lengths.isfinite(), 0.0)
        total += share @ gradients.nan_to_num(0.0, 0.0, 0.0)
    return total


def _gradients(target: Target, theta: Tensor, x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """(m, D) float32 for a few examples at a time."""

    def loss(weights: Tensor, one: Tensor, label: Tensor) -> Tensor:
        return functional.cross_entropy(target.logits(weights, one[None]), label[None])

    gradient = vmap(grad(loss), in_dims=(None, 0, 0))
    size = max(1, _CHUNK_NUMBERS // len(theta))
    for start in range(0, len(x), size):
        yield gradient(theta, x[start : start + size], y[start : start + size])
