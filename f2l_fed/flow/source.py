"""Source distributions: where the flow starts, before it has seen more than the context."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import torch
from torch import Tensor

from f2l_fed.codec.latent import LatentShape
from f2l_fed.symmetry import Parts

Source = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From expected latents (n, k) and the prior's error (k,) to a normal's centre and width."""


def gaussian(expected: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """N(0, I), the same for every context."""
    return torch.zeros_like(expected), torch.ones_like(spread)


def prior(expected: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """N(p(c), σ²): around the expected latent, as wide as the prior's own held-out error."""
    return expected, spread


SOURCES: dict[str, Source] = {"gaussian": gaussian, "prior": prior}


def draw(
    source: str,
    expected: Tensor,
    spread: Tensor,
    shape: LatentShape,
    rng: torch.Generator,
    *,
    temperature: float = 1.0,
) -> Tensor:
    """One start for each row of ``expected``.

    Args:
        source: A key of `SOURCES`.
        expected: (n, k) float32, the prior's predictions as latents.
        spread: (k,) float32, root mean square of the prior's held-out errors.
        shape: Layout of the latents.
        rng: Draws the noise.
        temperature: Factor on the width.

    Returns:
        (n, k) float32.
    """
    centre, width = SOURCES[source](expected, spread)
    return centre + temperature * width * _noise(len(expected), shape, rng)


def _noise(count: int, shape: LatentShape, rng: torch.Generator) -> Tensor:
    """Unit variance in every coordinate, within the space where deviations of rows sum to zero."""
    noise = torch.randn(count, shape.size, generator=rng)
    if not shape.width:
        return noise
    parts = shape.split(noise)
    deviations = parts.rows - parts.rows.mean(1, keepdim=True)
    lost = sqrt(1 - 1 / shape.classes)
    return shape.join(Parts(parts.common, deviations / lost))
