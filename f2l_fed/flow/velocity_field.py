"""The velocity field: a network on top of the velocity that is exact for normal targets."""

from __future__ import annotations

import torch
from torch import Tensor

from f2l_fed.codec.latent_shape import LatentShape
from f2l_fed.flow.film_network import FilmNetwork
from f2l_fed.flow.solvers.solver import Velocity
from f2l_fed.flow.sources.registry import SOURCES
from f2l_fed.flow.sources.source import DiagonalNormal


class VelocityField(FilmNetwork):
    """The velocity v(t, x, c) on latents.

    The network sees states in units of the marginal path's standard deviation and adds to the
    velocity that is exact if the targets are normal around the expected latent, so that an
    untrained field already transports the source there (the idea of EDM's preconditioning,
    arXiv 2206.00364, for straight paths).

    Where the context is withheld, the normal targets are those of whitened latents, N(0, I), and
    nothing of the context enters. The source "prior" is the exception: it starts at the expected
    latent, so the context is in the state already, and only the network is left without it.

    Args:
        shape: Layout of the latents; the context is a latent too.
        spread: (k,) float32, root mean square of the targets around the expected latents.
        source: A key of `SOURCES`.
        width: Hidden units of the common stream; output rows have half as many.
        depth: Number of blocks in each stream.
        initial: The normal of random initialisations where the source is "kaiming"; kept with the
            weights, so None will do for a field whose weights are read from a file.
    """

    spread: Tensor
    initial_centre: Tensor
    initial_width: Tensor

    def __init__(
        self,
        shape: LatentShape,
        spread: Tensor,
        source: str,
        *,
        width: int,
        depth: int,
        initial: DiagonalNormal | None = None,
    ) -> None:
        super().__init__(shape, width=width, depth=depth)
        self.source = source
        self.register_buffer("spread", spread, persistent=False)
        if SOURCES[source].initialises:
            initial = initial or DiagonalNormal(torch.zeros_like(spread), torch.ones_like(spread))
            self.register_buffer("initial_centre", initial.centre)
            self.register_buffer("initial_width", initial.width)

    @property
    def initial(self) -> DiagonalNormal | None:
        """The normal of random initialisations, where the source is made of them."""
        if not SOURCES[self.source].initialises:
            return None
        return DiagonalNormal(self.initial_centre, self.initial_width)

    def conditioned_on(self, context: Tensor, known: Tensor) -> Velocity:
        """The velocity for one batch of contexts; see `FilmNetwork.conditioned_on`."""
        start = SOURCES[self.source].start(DiagonalNormal(context, self.spread), self.initial)
        end = DiagonalNormal(context, self.spread)
        if not SOURCES[self.source].follows_context:
            visible = known[:, None]
            end = DiagonalNormal(context * visible, torch.where(visible > 0, self.spread, 1.0))
        way, before, after = end.centre - start.centre, start.width**2, end.width**2
        scale = (before + after).sqrt()
        learned = super().conditioned_on(context, known)

        def velocity(t: Tensor, x: Tensor) -> Tensor:
            time = t[:, None]
            off = x - torch.lerp(start.centre, end.centre, time)
            variance = (1 - time) ** 2 * before + time**2 * after
            pull = (time * after - (1 - time) * before) / variance
            normal = torch.addcmul(way, pull, off)
            return torch.addcmul(normal, scale, learned(t, off * variance.rsqrt()))

        return velocity
