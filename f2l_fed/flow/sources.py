"""Source distributions: where the flow starts, before it has seen more than the context."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from f2l_fed.codec.latent_shape import LatentShape
from f2l_fed.errors import ConfigError
from f2l_fed.symmetry.output_permutation import Parts

_NARROWEST = 1e-6


@dataclass(frozen=True, slots=True)
class Normal:
    """A normal distribution with independent coordinates.

    Args:
        centre: (n, k), (1, k) or (k,) float32.
        width: (n, k), (1, k) or (k,) float32, standard deviation.
    """

    centre: Tensor
    width: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Initial:
    """Random initialisations as latents.

    Args:
        make: From a count and a generator to (count, k) float32, encoded networks that were
            initialised at this call and are used for nothing else.
        normal: The normal that comes nearest to them; (k,) each.
    """

    make: Callable[[int, torch.Generator], Tensor]
    normal: Normal

    @classmethod
    def measured(
        cls,
        make: Callable[[int, torch.Generator], Tensor],
        shape: LatentShape,
        rng: torch.Generator,
        *,
        count: int = 256,
    ) -> Initial:
        """Looks at ``count`` initialisations to find centre and width."""
        latents = make(count, rng)
        centre = latents.mean(0)
        # Initialisations don't know one output from another, so no row has a centre of its own.
        centre[shape.common :] = 0
        return cls(make=make, normal=Normal(centre, pooled_rms(latents - centre, shape)))


Start = Callable[[Normal, Normal | None], Normal]
"""From the prior's prediction and the normal of initialisations to the normal of the source."""


def gaussian(expected: Normal, _: Normal | None) -> Normal:
    """N(0, I), the same for every context."""
    return Normal(torch.zeros_like(expected.width), torch.ones_like(expected.width))


def kaiming(_: Normal, initial: Normal | None) -> Normal:
    """Random initialisations, the same for every context; not normal, but near this one."""
    if initial is None:
        raise ConfigError(
            "the source starts from random initialisations, but nothing here makes them",
            where="source",
            got="'kaiming'",
            remedy="Choose another source, or hand over what draws and encodes them.",
        )
    return initial


def prior(expected: Normal, _: Normal | None) -> Normal:
    """N(p(c), σ²): around the expected latent, as wide as the prior's own held-out error."""
    return expected


@dataclass(frozen=True, slots=True)
class SourceDistribution:
    """A place to start from.

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
        self, count: int, shape: LatentShape, rng: torch.Generator, initial: Initial | None
    ) -> Tensor:
        """(count, k) float32, draws in units of the width around the centre; never seen before."""
        if initial is None or not self.initialises:
            return noise(count, shape, rng)
        return (initial.make(count, rng) - initial.normal.centre) / initial.normal.width


SOURCES: dict[str, SourceDistribution] = {
    "gaussian": SourceDistribution(gaussian),
    "kaiming": SourceDistribution(kaiming, initialises=True),
    "prior": SourceDistribution(prior, follows_context=True),
}


def draw(
    source: str,
    expected: Tensor,
    spread: Tensor,
    shape: LatentShape,
    rng: torch.Generator,
    *,
    temperature: float = 1.0,
    initial: Initial | None = None,
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
    initial: Initial | None = None,
) -> Tensor:
    """`draw` with (n, k) noise that is given; differentiable."""
    near = initial.normal if initial else None
    start = SOURCES[source].start(Normal(expected, spread), near)
    return start.centre + temperature * start.width * noise


def noise(count: int, shape: LatentShape, rng: torch.Generator) -> Tensor:
    """Unit variance in every coordinate, within the space where deviations of rows sum to zero."""
    plain = torch.randn(count, shape.size, generator=rng)
    if not shape.width:
        return plain
    parts = shape.split(plain)
    deviations = parts.rows - parts.rows.mean(1, keepdim=True)
    lost = sqrt(1 - 1 / shape.classes)
    return shape.join(Parts(parts.common, deviations / lost))


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
    return shape.join(Parts(parts.common, rows))[0].sqrt().clamp(min=_NARROWEST)
