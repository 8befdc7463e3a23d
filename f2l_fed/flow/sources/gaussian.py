"""The standard normal source."""

from __future__ import annotations

import torch

from f2l_fed.flow.sources.source import DiagonalNormal, SourceDistribution


def gaussian(expected: DiagonalNormal, _: DiagonalNormal | None) -> DiagonalNormal:
    """N(0, I), the same for every context."""
    return DiagonalNormal(torch.zeros_like(expected.width), torch.ones_like(expected.width))


GAUSSIAN = SourceDistribution(gaussian)
