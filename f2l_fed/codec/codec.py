"""What prior, flow and releases ask of a codec."""

from __future__ import annotations

from typing import ClassVar, Protocol

from torch import Tensor

from f2l_fed.codec.latent_shape import LatentShape
from f2l_fed.symmetry.output_permutation import OutputSymmetry


class Codec(Protocol):
    """Carries weights to latents and back.

    Laws:
        Latents are white over the fitted networks: unit variance, uncorrelated, the common part
        centred at zero. Permuting a network's outputs permutes its latent's rows and changes
        nothing else, and a latent's rows sum to zero. Both directions are differentiable torch
        functions. ``CODECS[codec.kind].from_tensors(codec.symmetry, codec.tensors())`` is the
        same codec, to the bit.
    """

    kind: ClassVar[str]
    """Its key in `f2l_fed.codec.CODECS`."""

    @property
    def symmetry(self) -> OutputSymmetry:
        """Coordinates it works in."""

    @property
    def shape(self) -> LatentShape:
        """Layout of a latent."""

    def encode(self, weights: Tensor) -> Tensor:
        """(n, D) float32 to (n, k) float32."""

    def decode(self, latents: Tensor) -> Tensor:
        """(n, k) float32 to (n, D) float32."""

    def displacement(self, start: Tensor, end: Tensor) -> Tensor:
        """decode(end) - decode(start); (n, k) float32 each to (n, D)."""

    def tensors(self) -> dict[str, Tensor]:
        """Everything but the symmetry, by name, for a file."""
