"""Principal components first, a chunk VAE on their coordinates.

This order, and not a VAE on what PCA has left over, because it makes a VAE possible at any D:
PCA reads the weights a block at a time, and what is trained, with the optimiser's two copies of
it, has the size of the latents. What the first stage leaves out, the second can't bring back, so
it keeps several times as many components as the latent has coordinates, and the second stage
chooses among them by the behaviour of networks instead of by their variance. A VAE on the
residual would need coordinates of its own, which the components then lack, and would look for
structure in what is mostly the noise of training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from f2l_fed.codec.behavioural_loss import Behaviour
from f2l_fed.codec.chunk_vae import ChunkVaeCodec, fit_chunk_vae, fit_on_target
from f2l_fed.codec.codec import CodecKind
from f2l_fed.codec.config import ChunkVaeConfig
from f2l_fed.codec.latent_shape import LatentShape
from f2l_fed.codec.pca import PcaCodec, fit_pca
from f2l_fed.codec.tensor_names import with_prefix, without_prefix
from f2l_fed.symmetry.output_permutation import OutputSymmetry

_SURPLUS = 4
"""Components of the first stage for each coordinate of the latent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PcaVaeCodec:
    """Weights to coordinates to latents, and back.

    Args:
        pca: First stage; not whitened, so that distances between coordinates are distances
            between weights.
        vae: Second stage, on the coordinates.
    """

    kind: ClassVar[str] = "pca-vae"

    pca: PcaCodec
    vae: ChunkVaeCodec

    @property
    def symmetry(self) -> OutputSymmetry:
        """Coordinates it works in."""
        return self.pca.symmetry

    @property
    def shape(self) -> LatentShape:
        """Layout of a latent."""
        return self.vae.shape

    def encode(self, weights: Tensor) -> Tensor:
        """(n, D) float32 to (n, k) float32."""
        return self.vae.encode(self.pca.encode(weights))

    def decode(self, latents: Tensor) -> Tensor:
        """(n, k) float32 to (n, D) float32."""
        return self.pca.decode(self.vae.decode(latents))

    def displacement(self, start: Tensor, end: Tensor) -> Tensor:
        """See `f2l_fed.codec.Codec`."""
        return self.decode(end) - self.decode(start)

    def tensors(self) -> dict[str, Tensor]:
        """See `f2l_fed.codec.Codec`."""
        return {
            **with_prefix("pca.", self.pca.tensors()),
            **with_prefix("vae.", self.vae.tensors()),
        }

    @classmethod
    def from_tensors(cls, symmetry: OutputSymmetry, tensors: Mapping[str, Tensor]) -> PcaVaeCodec:
        """See `f2l_fed.codec.Codec`."""
        pca = PcaCodec.from_tensors(symmetry, without_prefix("pca.", tensors))
        inner = latent_symmetry(pca.shape)
        return cls(pca=pca, vae=ChunkVaeCodec.from_tensors(inner, without_prefix("vae.", tensors)))


def fit_pca_vae(
    weights: Tensor,
    symmetry: OutputSymmetry,
    behaviour: Behaviour,
    config: ChunkVaeConfig,
    rng: torch.Generator,
) -> PcaVaeCodec:
    """Fits both stages.

    Args:
        weights: (n, D) float32, n >= 2.
        symmetry: Coordinates to work in.
        behaviour: Behaviour of the weights.
        config: Sizes and schedule of the second stage.
        rng: Draws everything random.
    """
    pca = _unwhitened(
        fit_pca(weights, symmetry, common=_SURPLUS * config.common, rows=_SURPLUS * config.rows)
    )
    inner = latent_symmetry(pca.shape)
    layers = torch.ones(inner.size, dtype=torch.int64)
    layers[inner.hidden] = 0
    vae = fit_chunk_vae(
        pca.encode(weights), inner, behaviour.through(pca.decode, layers), config, rng
    )
    return PcaVaeCodec(pca=pca, vae=vae)


def latent_symmetry(shape: LatentShape) -> OutputSymmetry:
    """The output symmetry of flat latents, so that they can be coded like weights.

    >>> latent_symmetry(LatentShape(common=1, classes=2, width=2)).output
    tensor([[1, 2],
            [3, 4]])
    """
    index = torch.arange(shape.size)
    common, rows = index.split([shape.common, shape.size - shape.common])
    return OutputSymmetry(common, rows.view(shape.classes, shape.width), shape.size)


def _unwhitened(codec: PcaCodec) -> PcaCodec:
    return replace(
        codec,
        common=replace(codec.common, scale=torch.ones_like(codec.common.scale)),
        rows=replace(codec.rows, scale=torch.ones_like(codec.rows.scale)),
    )


PCA_VAE = CodecKind(fit=fit_on_target(fit_pca_vae), from_tensors=PcaVaeCodec.from_tensors)
