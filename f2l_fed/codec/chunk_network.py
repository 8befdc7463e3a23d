"""The network of the chunk VAE: principal components between two networks shared by all chunks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from f2l_fed.codec.pca import principal_components
from f2l_fed.symmetry.output_permutation import IsotypicParts

_QUIETEST = 0.1
"""Smallest standard deviation of a layer, relative to all layers; below it is rounding."""


class ChunkNetwork(nn.Module):
    """A residual network shared by all chunks, which sees a chunk, its place and the latent."""

    def __init__(self, places: int, size: int, *, chunk: int, hidden: int) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.randn(places, hidden) / 2)
        self.latent = nn.Parameter(torch.randn(size, hidden) / max(1, size) ** 0.5)
        self.inner = nn.Linear(chunk, hidden)
        self.outer = nn.Linear(hidden, chunk)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, chunks: Tensor, latents: Tensor) -> Tensor:
        """(…, places, chunk) and (…, size) to (…, places, chunk)."""
        hidden = self.inner(chunks) + self.place + (latents @ self.latent)[..., None, :]
        update: Tensor = self.outer(functional.silu(hidden))
        return chunks + update


class LayerStream(nn.Module):
    """Encoder and decoder of one block of weights: (…, p) to (…, size) and back.

    Args:
        where: (p,) int64, position of each weight in its layer's padded chunks.
        size: Latent coordinates.
        chunk: Weights in a chunk.
        hidden: Hidden units.
    """

    where: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, where: Tensor, size: int, *, chunk: int, hidden: int) -> None:
        super().__init__()
        self.places = int(where.max()) // chunk + 1 if len(where) else 0
        self.chunk = chunk
        self.register_buffer("where", where)
        self.register_buffer("mean", torch.zeros(len(where)))
        self.register_buffer("scale", torch.ones(len(where)))
        self.down = nn.Parameter(torch.zeros(size, len(where)))
        self.up = nn.Parameter(torch.zeros(size, len(where)))
        self.before = ChunkNetwork(self.places, size, chunk=chunk, hidden=hidden)
        self.after = ChunkNetwork(self.places, size, chunk=chunk, hidden=hidden)

    @classmethod
    def starting_at_pca(
        cls, x: Tensor, layers: Tensor, size: int, *, chunk: int, hidden: int, centre: bool
    ) -> LayerStream:
        """An untrained stream, from (n, p) weights and the (p,) numbers of their layers."""
        mean = x.mean(0) if centre else torch.zeros(x.shape[1])
        spread = (x - mean).square().mean(0)
        least = _QUIETEST * spread.mean().sqrt()
        scale = torch.ones(x.shape[1])
        for layer in layers.unique():
            scale[layers == layer] = spread[layers == layer].mean().sqrt().maximum(least)
        scale = torch.where(scale > 0, scale, 1.0)
        found = principal_components((x - mean) / scale, size, centre=False)
        stream = cls(chunk_positions(layers, chunk), len(found.scale), chunk=chunk, hidden=hidden)
        for own, value in (
            (stream.mean, mean),
            (stream.scale, scale),
            (stream.down, found.basis / found.scale[:, None]),
            (stream.up, found.basis * found.scale[:, None]),
        ):
            own.data.copy_(value)
        return stream

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> LayerStream:
        """The inverse of `state_dict`."""
        hidden, chunk = state["before.inner.weight"].shape
        stream = cls(state["where"], len(state["down"]), chunk=chunk, hidden=hidden)
        stream.load_state_dict(state)
        return stream

    def encode(self, x: Tensor) -> Tensor:
        """(…, p) to (…, size)."""
        standard = (x - self.mean) / self.scale
        return self._changed(self.before, standard, standard @ self.down.T) @ self.down.T

    def decode(self, z: Tensor) -> Tensor:
        """(…, size) to (…, p)."""
        return self._changed(self.after, z @ self.up, z) * self.scale + self.mean

    def _changed(self, network: ChunkNetwork, standard: Tensor, latents: Tensor) -> Tensor:
        padded = standard.new_zeros(*standard.shape[:-1], self.places * self.chunk)
        padded[..., self.where] = standard
        changed = network(padded.unflatten(-1, (self.places, self.chunk)), latents)
        weights: Tensor = changed.flatten(-2)[..., self.where]
        return weights


class ChunkVae(nn.Module):
    """The streams of both blocks of the output symmetry."""

    def __init__(self, common: LayerStream, rows: LayerStream) -> None:
        super().__init__()
        self.common, self.rows = common, rows

    def encode(self, weights: IsotypicParts) -> IsotypicParts:
        """Encodes weights to latents with rows that sum to zero."""
        return IsotypicParts(
            self.common.encode(weights.common), centred(self.rows.encode(weights.rows))
        )

    def decode(self, latents: IsotypicParts) -> IsotypicParts:
        """Decodes latents to weights with rows that sum to zero."""
        return IsotypicParts(
            self.common.decode(latents.common), centred(self.rows.decode(latents.rows))
        )


def centred(rows: Tensor) -> Tensor:
    """The rows (n, K, w) less their mean over K."""
    return rows - rows.mean(1, keepdim=True)


def chunk_positions(layers: Tensor, chunk: int) -> Tensor:
    """Position of each weight in chunks; every layer fills its own, the last one padded.

    >>> chunk_positions(torch.tensor([0, 0, 0, 1, 1]), 2)
    tensor([0, 1, 2, 4, 5])
    """
    sizes = layers.unique_consecutive(return_counts=True)[1]
    padded = (sizes + chunk - 1) // chunk * chunk
    starts = padded.cumsum(0) - padded
    before = sizes.cumsum(0) - sizes
    shifts: Tensor = (starts - before).repeat_interleave(sizes)
    return shifts + torch.arange(len(layers))
