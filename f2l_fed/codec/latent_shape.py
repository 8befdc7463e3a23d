"""The layout of a flat latent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.symmetry.output_permutation import IsotypicParts


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentShape:
    """The layout of a latent: a common part, then one equally long part for each output.

    Args:
        common: Number of coordinates that no output permutation changes.
        classes: K, or 0 where there is no symmetry.
        width: Coordinates of each output.

    >>> LatentShape(common=3, classes=2, width=4).size
    11
    """

    common: int
    classes: int
    width: int

    @property
    def size(self) -> int:
        """k, the length of a flat latent."""
        return self.common + self.classes * self.width

    def split(self, latents: Tensor) -> IsotypicParts:
        """(n, k) to common (n, common) and rows (n, K, width); views."""
        common, rows = latents.split([self.common, self.classes * self.width], dim=1)
        return IsotypicParts(common, rows.reshape(len(latents), self.classes, self.width))

    def join(self, parts: IsotypicParts) -> Tensor:
        """The inverse of `split`."""
        return torch.cat([parts.common, parts.rows.flatten(1)], dim=1)
