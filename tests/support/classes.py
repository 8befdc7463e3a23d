"""Heads of made-up sites whose classes are drawn from a known set."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.symmetry.output_permutation import OutputSymmetry


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnHeads:
    """Rows of contexts and networks of sites with known classes.

    Args:
        prototypes: (classes, R) float32, the true row of each class.
        classes: (n, K) int64, which ones each site has.
        contexts: (n, E, K, R) float32, the rows with much noise.
        weights: (n, E, K, R) float32, the rows with little.
    """

    prototypes: Tensor
    classes: Tensor
    contexts: Tensor
    weights: Tensor

    @property
    def symmetry(self) -> OutputSymmetry:
        """Coordinates of the flat heads."""
        return rows_alone(*self.weights.shape[2:])

    @property
    def flat(self) -> tuple[Tensor, Tensor]:
        """(n, E, K·R) contexts and weights."""
        return self.contexts.flatten(2), self.weights.flatten(2)


def rows_alone(classes: int, width: int) -> OutputSymmetry:
    """The symmetry of a network that is nothing but output rows."""
    size = classes * width
    return OutputSymmetry(
        torch.empty(0, dtype=torch.int64), torch.arange(size).view(classes, width), size
    )


def drawn_heads(
    *,
    sites: int = 30,
    known: int = 12,
    width: int = 40,
    each: int = 4,
    pairs: int = 3,
    noise: float = 1.0,
    seed: int = 0,
) -> DrawnHeads:
    """Draws sites; every class has a direction of its own, and the noise has all directions.

    Like softmax heads, the rows of a site sum to zero.
    """
    draws = torch.Generator().manual_seed(seed)
    prototypes = torch.randn(known, width, generator=draws)
    classes = torch.stack([torch.randperm(known, generator=draws)[:each] for _ in range(sites)])
    true = prototypes[classes][:, None].expand(sites, pairs, each, width)

    def seen(scale: float) -> Tensor:
        rows = true + scale * torch.randn(true.shape, generator=draws)
        return rows - rows.mean(2, keepdim=True)

    return DrawnHeads(
        prototypes=prototypes, classes=classes, contexts=seen(noise), weights=seen(0.05)
    )
