"""The velocity field: residual blocks modulated by time and context (FiLM).

It commutes with permutations of the outputs: one network is shared by all output rows and sees
the others only through their mean, so every record counts for all its K! relabelled copies.

Reference:
    Perez et al.: FiLM, arXiv 1709.07871. Zaheer et al.: Deep sets, arXiv 1703.06114.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from f2l_fed.codec.latent import LatentShape
from f2l_fed.flow.source import SOURCES
from f2l_fed.symmetry import Parts

_FREQUENCIES = 16


class FilmBlock(nn.Module):
    """Residual layer whose normalised input is scaled and shifted by a condition."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.film = nn.Linear(condition, 2 * width)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(…, width) and (…, condition) to (…, width)."""
        scale, shift = self.film(condition).chunk(2, dim=-1)
        normal = functional.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift
        update: Tensor = self.outer(functional.silu(self.inner(normal)))
        return x + update


class VelocityField(nn.Module):
    """v(t, x, c) on latents.

    The networks see states in units of the marginal path's standard deviation and add to the
    velocity that is exact if the targets are normal around the expected latent, so that an
    untrained field already transports the source there (the idea of EDM's preconditioning,
    arXiv 2206.00364, for straight paths).

    Args:
        shape: Layout of the latents; the context is a latent too.
        spread: (k,) float32, root mean square of the targets around the expected latents.
        source: A key of `SOURCES`.
        width: Hidden units of the common stream; output rows have half as many.
        depth: Number of blocks in each stream.
    """

    spread: Tensor

    def __init__(
        self, shape: LatentShape, spread: Tensor, source: str, *, width: int, depth: int
    ) -> None:
        super().__init__()
        self.shape, self.source = shape, source
        rows = width // 2 if shape.width else 0
        self.register_buffer("spread", spread, persistent=False)
        self.time = nn.Sequential(
            nn.Linear(2 * _FREQUENCIES + 1, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.context = nn.Linear(shape.common, width, bias=False)
        self.common_in = nn.Linear(2 * shape.common + rows, width)
        self.common_blocks = nn.ModuleList(FilmBlock(width, width) for _ in range(depth))
        self.common_out = _zero(nn.Linear(width, shape.common))
        if rows:
            self.row_in = nn.Linear(2 * shape.width, rows)
            self.row_blocks = nn.ModuleList(FilmBlock(rows, width) for _ in range(depth))
            self.row_out = _zero(nn.Linear(rows, shape.width))

    def forward(self, t: Tensor, x: Tensor, context: Tensor, known: Tensor) -> Tensor:
        """The velocity.

        Args:
            t: (n,) float32 in [0, 1].
            x: (n, k) float32, states.
            context: (n, k) float32, what the prior expects.
            known: (n,) float32, 1 where the context is given, 0 where it is withheld.

        Returns:
            (n, k) float32.
        """
        start, width = SOURCES[self.source](context, self.spread)
        time = t[:, None]
        path = torch.lerp(start, context, time)
        variance = ((1 - time) * width) ** 2 + (time * self.spread) ** 2
        pull = (time * self.spread**2 - (1 - time) * width**2) / variance
        normal = context - start + pull * (x - path)
        learned = self._learned(t, (x - path) / variance.sqrt(), context * known[:, None], known)
        return normal + (width**2 + self.spread**2).sqrt() * learned

    def _learned(self, t: Tensor, state: Tensor, context: Tensor, known: Tensor) -> Tensor:
        states, given = self.shape.split(state), self.shape.split(context)
        condition = self.time(_waves(t, known)) + self.context(given.common)
        seen = [states.common, given.common]
        if self.shape.width:
            tokens = self.row_in(torch.cat([states.rows, given.rows], dim=2))
            seen.append(functional.silu(tokens).mean(1))
        common = self.common_in(torch.cat(seen, dim=1))
        for block in self.common_blocks:
            common = block(common, condition)
        velocity: Tensor = self.common_out(common)
        if not self.shape.width:
            return velocity
        row_condition = (condition + common)[:, None].expand(-1, self.shape.classes, -1)
        for block in self.row_blocks:
            tokens = block(tokens, row_condition)
        rows = self.row_out(tokens)
        # Deviations of the rows sum to zero, and so must their velocities.
        return self.shape.join(Parts(velocity, rows - rows.mean(1, keepdim=True)))


def _waves(t: Tensor, known: Tensor) -> Tensor:
    angles = t[:, None] * torch.exp(torch.linspace(0, math.log(100), _FREQUENCIES)) * math.pi
    return torch.cat([angles.sin(), angles.cos(), known[:, None]], dim=1)


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
