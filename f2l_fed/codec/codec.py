"""The interface of a codec, and the record under which a kind of codec is registered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from f2l_fed.codec.latent_shape import LatentShape
from f2l_fed.matrices.workspace import IN_MEMORY, Workspace
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.targets.target import Target


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


class FitCodec(Protocol):
    """Fits a codec with at most so many coordinates to (n, D) weights of a target.

    What is as wide as the weights may lie in a workspace.
    """

    def __call__(
        self,
        weights: Tensor,
        symmetry: OutputSymmetry,
        target: Target,
        rng: torch.Generator,
        *,
        common: int,
        rows: int,
        work: Workspace = IN_MEMORY,
    ) -> Codec: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecKind:
    """A kind of codec.

    Args:
        fit: Fits one; the same bits for equal arguments.
        from_tensors: The codec of a symmetry and of what `Codec.tensors` gave.
    """

    fit: FitCodec
    from_tensors: Callable[[OutputSymmetry, Mapping[str, Tensor]], Codec]
