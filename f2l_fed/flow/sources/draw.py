"""Draws from a source distribution."""

from __future__ import annotations

import torch
from torch import Tensor

from f2l_fed.codec.latent_shape import LatentShape
from f2l_fed.flow.sources.registry import SOURCES
from f2l_fed.flow.sources.source import DiagonalNormal, Initialisations


def draw(
    source: str,
    expected: Tensor,
    spread: Tensor,
    shape: LatentShape,
    rng: torch.Generator,
    *,
    temperature: float = 1.0,
    initial: Initialisations | None = None,
) -> Tensor:
    """One start for each row of ``expected``.

    Args:
        source: A key of `SOURCES`.
        expected: (n, k) float32, the prior's predictions as latents.
        spread: (k,) float32, root mean square of the prior's held-out errors.
        shape: Layout of the latents.
        rng: Draws the noise.
        temperature: Factor on the width.
        initial: Makes random initialisations; only the source "kaiming" needs it.

    Returns:
        (n, k) float32.
    """
    drawn = SOURCES[source].noise(len(expected), shape, rng, initial)
    return begin(source, expected, spread, drawn, temperature=temperature, initial=initial)


def begin(
    source: str,
    expected: Tensor,
    spread: Tensor,
    noise: Tensor,
    *,
    temperature: float = 1.0,
    initial: Initialisations | None = None,
) -> Tensor:
    """`draw` with (n, k) noise that is given; differentiable."""
    near = initial.normal if initial else None
    start = SOURCES[source].start(DiagonalNormal(expected, spread), near)
    return start.centre + temperature * start.width * noise
