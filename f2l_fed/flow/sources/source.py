"""The record under which a source distribution is registered, and what it is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.codec.latent_shape import LatentShape
from f2l_fed.flow.sources.noise import pooled_rms, white_noise


@dataclass(frozen=True, slots=True)
class DiagonalNormal:
    """A normal distribution with independent coordinates.

    Args:
        centre: (n, k), (1, k) or (k,) float32.
        width: (n, k), (1, k) or (k,) float32, standard deviation.
    """

    centre: Tensor
    width: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Initialisations:
    """Random initialisations as latents.

    Args:
        make: From a count and a generator to (count, k) float32, encoded networks that were
            initialised at this call and are used for nothing else.
        normal: The normal that comes nearest to them; (k,) each.
    """

    make: Callable[[int, torch.Generator], Tensor]
    normal: DiagonalNormal

    @classmethod
    def measured(
        cls,
        make: Callable[[int, torch.Generator], Tensor],
        shape: LatentShape,
        rng: torch.Generator,
        *,
        count: int = 256,
    ) -> Initialisations:
        """Looks at ``count`` initialisations to find centre and width."""
        latents = make(count, rng)
        centre = latents.mean(0)
        # Initialisations don't know one output from another, so no row has a centre of its own.
        centre[shape.common :] = 0
        normal = DiagonalNormal(centre, pooled_rms(latents - centre, shape))
        return cls(make=make, normal=normal)


Start = Callable[[DiagonalNormal, DiagonalNormal | None], DiagonalNormal]
"""From the prior's prediction and the normal of initialisations to the normal of the source."""


@dataclass(frozen=True, slots=True)
class SourceDistribution:
    """A distribution that the flow starts from, before it has seen more than the context.

    Args:
        start: Its normal.
        follows_context: Whether it moves with the context. If it does not, a flow that is not
            told the context does not depend on it at all.
        initialises: Whether its noise is random initialisations instead of normal numbers.
    """

    start: Start
    follows_context: bool = False
    initialises: bool = False

    def noise(
        self,
        count: int,
        shape: LatentShape,
        rng: torch.Generator,
        initial: Initialisations | None,
    ) -> Tensor:
        """(count, k) float32, draws in units of the width around the centre; never seen before."""
        if initial is None or not self.initialises:
            return white_noise(count, shape, rng)
        return (initial.make(count, rng) - initial.normal.centre) / initial.normal.width
