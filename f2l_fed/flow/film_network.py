"""The FiLM network of every model on latents: residual blocks modulated by time and context.

It commutes with permutations of the outputs: one network is shared by all output rows and sees
the others only through their mean, so every record counts for all its K! relabelled copies.

Reference:
    Perez et al.: FiLM, arXiv 1709.07871. Zaheer et al.: Deep sets, arXiv 1703.06114. Ho,
    Salimans: Classifier-free diffusion guidance, arXiv 2207.12598.
"""

from __future__ import annotations

import math
import warnings
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from f2l_fed.codec.latent_shape import LatentShape
from f2l_fed.flow.solvers.solver import Velocity
from f2l_fed.symmetry.output_permutation import IsotypicParts

_FREQUENCIES = torch.exp(torch.linspace(0, math.log(100), 16)) * math.pi


class FilmBlock(nn.Module):
    """Residual layer whose normalised input is scaled and shifted.

    Args:
        width: Hidden units.
        condition: Length of what `film` turns into scales and shifts.
    """

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.film = nn.Linear(condition, 2 * width)
        self.inner = nn.Linear(width, width)
        self.outer = _zero(nn.Linear(width, width))

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        """(…, width) and the scales and shifts (…, 2 width) to (…, width)."""
        scale, shift = film.chunk(2, dim=-1)
        normal = torch.addcmul(shift, functional.layer_norm(x, x.shape[-1:]), 1 + scale)
        update: Tensor = self.outer(functional.silu(self.inner(normal)))
        return x + update


class FilmNetwork(nn.Module):
    """A network from time, state and context to a vector of the state's shape; zero at first.

    Args:
        shape: Layout of the latents; the context is a latent too.
        width: Hidden units of the common stream; output rows have half as many.
        depth: Number of blocks in each stream.
    """

    frequencies: Tensor

    def __init__(self, shape: LatentShape, *, width: int, depth: int) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("frequencies", _FREQUENCIES, persistent=False)
        rows = width // 2 if shape.width else 0
        self.time = nn.Sequential(
            nn.Linear(2 * len(_FREQUENCIES) + 1, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.context = _linear(shape.common, width, bias=False)
        self.common_in = _linear(2 * shape.common + rows, width)
        self.common_blocks = nn.ModuleList(FilmBlock(width, width) for _ in range(depth))
        self.common_out = _zero(_linear(width, shape.common))
        if rows:
            self.row_in = _linear(2 * shape.width, rows)
            self.row_blocks = nn.ModuleList(FilmBlock(rows, width) for _ in range(depth))
            self.row_out = _zero(_linear(rows, shape.width))

    def forward(self, t: Tensor, x: Tensor, context: Tensor, known: Tensor) -> Tensor:
        """Evaluates the network.

        Args:
            t: (n,) or (1,) float32 in [0, 1].
            x: (n, k) float32, states.
            context: (n, k) or (1, k) float32, the latent that the prior expects.
            known: (n,) or (1,) float32, 1 where the context is given, 0 where it is withheld.

        Returns:
            (n, k) float32.
        """
        return self.conditioned_on(context, known)(t, x)

    def conditioned_on(self, context: Tensor, known: Tensor) -> Velocity:
        """`forward` for one batch of contexts, with what depends on them alone computed once."""
        shape, seen = self.shape, self.shape.split(context * known[:, None])
        state, fixed, pooled = self.common_in.weight.split(
            [shape.common, shape.common, self.common_in.in_features - 2 * shape.common], dim=1
        )
        common_blocks = cast("list[FilmBlock]", self.common_blocks)
        row_blocks = cast("list[FilmBlock]", self.row_blocks) if shape.width else []
        embedded = self.context(seen.common)
        entry = functional.linear(seen.common, fixed, self.common_in.bias)
        films = [block.film(embedded) for block in common_blocks]
        if shape.width:
            row_state, row_fixed = self.row_in.weight.chunk(2, dim=1)
            row_entry = functional.linear(seen.rows, row_fixed, self.row_in.bias)

        def evaluate(t: Tensor, x: Tensor) -> Tensor:
            parts, time = shape.split(x), self.time(_waves(t, known, self.frequencies))
            common = torch.addmm(entry, parts.common, state.T)
            if shape.width:
                rows = row_entry + functional.linear(parts.rows, row_state)
                common = common + functional.linear(functional.silu(rows).mean(1), pooled)
            for block, film in zip(common_blocks, films, strict=True):
                common = block(common, film + functional.linear(time, block.film.weight))
            end: Tensor = self.common_out(common)
            if not shape.width:
                return end
            condition = time + embedded + common
            for block in row_blocks:
                rows = block(rows, block.film(condition)[:, None])
            rows = self.row_out(rows)
            # Deviations of the rows sum to zero, and so must whatever moves them.
            return shape.join(IsotypicParts(end, rows - rows.mean(1, keepdim=True)))

        return evaluate


def guided(network: FilmNetwork, context: Tensor, *, guidance: float = 1.0) -> Velocity:
    """A network as a function of time and state alone.

    Args:
        network: Fitted with contexts withheld now and then.
        context: (n, k) or (1, k) float32.
        guidance: 1 follows the context as learned, above 1 exaggerates what was learned of it, 0
            withholds it, which is all that a network fitted without contexts can do.
    """

    def with_known(known: float) -> Velocity:
        return network.conditioned_on(context, context.new_full((1,), known))

    if guidance in (0, 1):
        return with_known(guidance)
    without, conditional = with_known(0), with_known(1)
    return lambda t, x: torch.lerp(without(t, x), conditional(t, x), guidance)


def _waves(t: Tensor, known: Tensor, frequencies: Tensor) -> Tensor:
    t, known = torch.broadcast_tensors(t, known)
    angles = t[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos(), known[:, None]], dim=1)


def _linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """A layer, also of latents in which there is nothing, as of networks that are all equal."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Initializing zero-element")
        return nn.Linear(inputs, outputs, bias=bias)


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
