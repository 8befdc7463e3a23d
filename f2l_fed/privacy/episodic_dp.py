"""Private episodic training: a body's update that hides which examples a site has.

An episode has no gradient of single examples: its loss compares them with each other. So every
step deals the site's examples into episodes that have none in common, and clips the gradient of
each episode. Another example in the place of one changes one episode and no other, and its clipped
gradient by at most twice the clipping length: that is the sensitivity of their sum. The presence of
an example changes no more, so the steps add up with others in `f2l_fed.privacy.accountant`.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from f2l_fed.errors import TargetError
from f2l_fed.local_training.config import EpisodesConfig
from f2l_fed.local_training.episodic import episode_gradient
from f2l_fed.privacy.accountant import require_positive
from f2l_fed.targets.body import Body

SENSITIVITY = 2.0
"""Largest change of the sum of clipped gradients by one replaced example, in clipping lengths."""

SUPPORT, QUERY = 2, 3
"""Examples per class of an episode: small episodes are many, and their noise is shared by all."""


def train_body_privately(
    body: Body,
    weights: Tensor,
    x: Tensor,
    y: Tensor,
    config: EpisodesConfig,
    steps: int,
    *,
    lr: float,
    noise_multiplier: float,
    max_norm: float,
    rng: torch.Generator,
) -> Tensor:
    """The body after some differentially private episodic steps on a site's examples.

    Each step is a Gaussian mechanism without sampling: all examples take part in it, and its noise
    has a standard deviation of ``noise_multiplier`` sensitivities. The number of examples counts as
    known; their labels are protected as their inputs are.

    Args:
        body: The body, without batch normalisation.
        weights: (B,) float32, the start; not changed.
        x: (n, *input_shape) float32.
        y: (n,) int64.
        config: Momentum, and whether whole episodes are turned and inverted.
        steps: Number of steps, each on all examples.
        lr: Learning rate.
        noise_multiplier: Standard deviation of the noise in every coordinate of the sum of clipped
            gradients, over `SENSITIVITY` times ``max_norm``.
        max_norm: Largest Euclidean length of one episode's gradient.
        rng: Deals examples, draws turns and noise; seed it from the operating system, as for
            `f2l_fed.privacy.gaussian_mechanism.add_noise`.

    Returns:
        (B,) float32.

    Raises:
        TargetError: If the network has batch normalisation.
        UsageError: If the length or the noise isn't positive.

    Reference:
        Abadi et al.: Deep learning with differential privacy. CCS 2016, algorithm 1.
    """
    require_no_statistics(body)
    require_positive("noise_multiplier", noise_multiplier)
    require_positive("max_norm", max_norm)
    small = replace(config, support=SUPPORT, query=QUERY)
    count = episode_count(len(y), body.network.classes)
    deviation = noise_multiplier * SENSITIVITY * max_norm
    theta, momentum = weights.detach().clone(), torch.zeros_like(weights)
    for _ in range(steps):
        total = torch.zeros(theta.shape, dtype=torch.float64)
        # Each on its own: an example that is dealt elsewhere would change a second episode.
        place = torch.randint(count, y.shape, generator=rng)
        for episode in range(count):
            mine = place == episode
            gradient = episode_gradient(body, theta, x[mine], y[mine], small, rng)
            total += clipped(gradient, max_norm)
        noise = torch.randn(total.shape, generator=rng, dtype=torch.float64)
        mean = ((total + deviation * noise) / count).float()
        momentum = config.momentum * momentum + mean
        theta = theta - lr * momentum
    return theta


def require_no_statistics(body: Body) -> None:
    """Raises TargetError for a body with batch normalisation, which tells of all its inputs."""
    if body.network.statistics:
        raise TargetError(
            "the statistics of batch normalisation can't be trained privately",
            where=body.network.name,
            remedy="Use a target with group normalisation, or none.",
        )


def episode_count(examples: int, classes: int) -> int:
    """The number of episodes that a step deals examples into, from numbers that count as known.

    >>> episode_count(250, 5)
    10
    """
    return max(1, examples // (classes * (SUPPORT + QUERY)))


def clipped(gradient: Tensor, max_norm: float) -> Tensor:
    """(B,) float64, a gradient of at most this length; zero where it is not finite.

    An error would tell that some example made it overflow.
    """
    exact = gradient.double()
    length = float(exact.norm())
    if not length < float("inf"):
        return torch.zeros_like(exact)
    return exact * (max_norm / max(length, max_norm))
