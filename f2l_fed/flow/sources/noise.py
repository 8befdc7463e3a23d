"""Noise in the space of latents, and its width."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor

from f2l_fed.codec.latent_shape import LatentShape
from f2l_fed.symmetry.output_permutation import IsotypicParts

_NARROWEST = 1e-6


def white_noise(count: int, shape: LatentShape, rng: torch.Generator) -> Tensor:
    """Noise of unit variance in every coordinate, whose deviations of rows sum to zero.

    Args:
        count: n.
        shape: Layout of the latents.
        rng: Draws the noise.

    Returns:
        (n, k) float32.
    """
    plain = torch.randn(count, shape.size, generator=rng)
    if not shape.width:
        return plain
    parts = shape.split(plain)
    deviations = parts.rows - parts.rows.mean(1, keepdim=True)
    lost = sqrt(1 - 1 / shape.classes)
    return shape.join(IsotypicParts(parts.common, deviations / lost))


def pooled_rms(errors: Tensor, shape: LatentShape) -> Tensor:
    """Root mean square of each kind of coordinate, pooled over the outputs, which are exchangeable.

    Args:
        errors: (n, k) float32.
        shape: Layout of the latents.

    Returns:
        (k,) float32, above zero.
    """
    square = errors.square().mean(0, keepdim=True)
    parts = shape.split(square)
    rows = parts.rows.mean(1, keepdim=True).expand_as(parts.rows) if shape.width else parts.rows
    return shape.join(IsotypicParts(parts.common, rows))[0].sqrt().clamp(min=_NARROWEST)
