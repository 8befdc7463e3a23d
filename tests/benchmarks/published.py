"""The cost of a published sampler of network weights, to compare ours with on the same machine.

Only the cost: the network below has the sizes of the published one and random weights, which take
as long as trained ones. Sizes and schedule are those of the authors' code for 784-32-32-10
networks on MNIST: hidden layers of 512, 256 and 512 units with layer normalisation and GELU, a time
embedding of 64, 100 networks at once, and the classical Runge-Kutta method on 100 points in time,
which makes 99 steps and 396 evaluations. The state is the whole weight vector, or 99 principal
components that are decoded at the end. All steps cost the same, so one is timed.

Reference:
    Gupta et al.: DeepWeightFlow: Re-basined flow matching for generating neural network weights,
    arXiv 2601.05052.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

STEPS = 99
"""Each of four evaluations."""
COMPONENTS = 99

_HIDDEN = 512
_TIME = 64


class PublishedField(nn.Module):
    """A velocity of states (n, size) at times (n, 1)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(1, _TIME), nn.GELU(), nn.Linear(_TIME, _TIME))
        widths = (size + _TIME, _HIDDEN, _HIDDEN // 2, _HIDDEN)
        layers: list[nn.Module] = []
        for below, above in pairwise(widths):
            layers += [nn.Linear(below, above), nn.LayerNorm(above), nn.GELU()]
        self.body = nn.Sequential(*layers, nn.Linear(_HIDDEN, size))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        velocity: Tensor = self.body(torch.cat([x, self.time(t)], dim=1))
        return velocity


@torch.no_grad()
def runge_kutta_step(field: PublishedField, x: Tensor) -> Tensor:
    """One of the `STEPS` steps from (n, size) states."""
    h, t = 1 / STEPS, torch.zeros(len(x), 1)
    first = field(t, x)
    second = field(t + h / 2, x + h / 2 * first)
    third = field(t + h / 2, x + h / 2 * second)
    last = field(t + h, x + h * third)
    return x + h / 6 * (first + 2 * second + 2 * third + last)
