"""A published sampler of network weights, to compare ours with on the same machine and networks.

Written from the paper. Sizes and schedule are those of the authors for 784-32-32-10 networks on
MNIST: hidden layers of 512, 256 and 512 units with layer normalisation and GELU, a time embedding
of 64, 30,000 steps of AdamW on batches of 8 with dropout, 100 networks at once, and the classical
Runge-Kutta method on 100 points in time, which makes 99 steps and 396 evaluations. The state is the
whole weight vector, or principal components that are decoded at the end.

Reference:
    Gupta et al.: DeepWeightFlow: Re-basined flow matching for generating neural network weights,
    arXiv 2601.05052.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

STEPS = 99
"""Each of four evaluations."""
COMPONENTS = 99

_HIDDEN = 512
_TIME = 64
_DROPOUT = 0.1
_SOURCE = 0.01
"""Standard deviation of the source."""
_NOISE = 0.001
"""Standard deviation of the noise around the straight path."""
_BATCH = 8


class PublishedField(nn.Module):
    """A velocity of states (n, size) at times (n, 1)."""

    def __init__(self, size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(1, _TIME), nn.GELU(), nn.Linear(_TIME, _TIME))
        widths = (size + _TIME, _HIDDEN, _HIDDEN // 2, _HIDDEN)
        layers: list[nn.Module] = []
        for below, above in pairwise(widths):
            layers += [nn.Linear(below, above), nn.LayerNorm(above), nn.GELU(), nn.Dropout(dropout)]
        self.body = nn.Sequential(*layers, nn.Linear(_HIDDEN, size))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        velocity: Tensor = self.body(torch.cat([x, self.time(t)], dim=1))
        return velocity


@torch.no_grad()
def runge_kutta_step(field: PublishedField, x: Tensor, t: float = 0.0) -> Tensor:
    """One of the `STEPS` steps from (n, size) states at a time."""
    h, now = 1 / STEPS, torch.full((len(x), 1), t)
    first = field(now, x)
    second = field(now + h / 2, x + h / 2 * first)
    third = field(now + h / 2, x + h / 2 * second)
    last = field(now + h, x + h * third)
    return x + h / 6 * (first + 2 * second + 2 * third + last)


def train(
    latents: Tensor, lengths: Sequence[int], rng: torch.Generator
) -> dict[int, PublishedField]:
    """Trains one field and keeps it as it is after each of some numbers of steps.

    Args:
        latents: (n, size) float32, centred but not scaled.
        lengths: Rising.
        rng: Draws batches, times and noise, and seeds initialisation and dropout.
    """
    kept = {}
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(1 << 31, (1,), generator=rng)))
        field = PublishedField(latents.shape[1], _DROPOUT)
        nn.init.zeros_(field.body[-1].weight)
        nn.init.zeros_(field.body[-1].bias)
        optimiser = torch.optim.AdamW(field.parameters(), lr=5e-4, weight_decay=1e-5, fused=True)
        for step in range(1, lengths[-1] + 1):
            ends = latents[torch.randperm(len(latents), generator=rng)[:_BATCH]]
            starts = _SOURCE * torch.randn(ends.shape, generator=rng)
            t = torch.rand(len(ends), 1, generator=rng)
            noise = _NOISE * torch.randn(ends.shape, generator=rng)
            loss = (field(t, torch.lerp(starts, ends, t) + noise) - (ends - starts)).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if step in lengths:
                kept[step] = copy.deepcopy(field).eval()
    return kept


def sample(field: PublishedField, size: int, count: int, rng: torch.Generator) -> Tensor:
    """Draws (count, size) latents by the Runge-Kutta method."""
    x = _SOURCE * torch.randn(count, size, generator=rng)
    for step in range(STEPS):
        x = runge_kutta_step(field, x, step / STEPS)
    return x
