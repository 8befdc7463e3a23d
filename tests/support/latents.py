"""Latents whose distribution is known, for models that are fitted on them."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from f2l_fed.codec import LatentShape
from f2l_fed.flow import Initialisations
from f2l_fed.symmetry.output_permutation import IsotypicParts
from tests.support.small import rng

SHAPE = LatentShape(common=2, classes=3, width=2)
PLAIN = LatentShape(common=2, classes=0, width=0)

MODE = 0.9
"""Distance of both modes of `bimodal` from what is expected."""


def bimodal(count: int = 400, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Targets to the left or to the right of what is expected, that, and how wide they lie."""
    draws = rng(seed)
    expected = 0.45 * torch.randn(count, 2, generator=draws)
    side = 2 * MODE * torch.randint(2, (count,), generator=draws) - MODE
    noise = 0.045 * torch.randn(count, 2, generator=draws)
    offset = torch.stack([side, torch.zeros(count)], 1) + noise
    return expected + offset, expected, offset.square().mean(0).sqrt()


def shares(offsets: Tensor) -> tuple[float, float, float]:
    """How many offsets lie near the left mode, between the modes, and near the right one.

    A normal of the same width has a quarter of its draws between them.
    """
    places = ((offsets[:, 0] - centre).abs() < MODE / 3 for centre in (-MODE, 0, MODE))
    left, between, right = (float(place.float().mean()) for place in places)
    return left, between, right


@cache
def box(shape: LatentShape) -> Initialisations:
    """Initialisations that are uniform, from 1 to 5, with rows that sum to zero."""

    def make(count: int, draws: torch.Generator) -> Tensor:
        parts = shape.split(4 * torch.rand(count, shape.size, generator=draws) - 2)
        rows = parts.rows - parts.rows.mean(1, keepdim=True) if shape.width else parts.rows
        return shape.join(IsotypicParts(parts.common + 3, rows))

    return Initialisations.measured(make, shape, rng(11), count=2_000)
