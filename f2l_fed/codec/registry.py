"""The codecs by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

from f2l_fed.codec.behavioural_loss import Behaviour
from f2l_fed.codec.chunk_vae import ChunkVaeCodec, ChunkVaeConfig, fit_chunk_vae
from f2l_fed.codec.codec import Codec
from f2l_fed.codec.pca import PcaCodec, fit_pca
from f2l_fed.codec.pca_vae import PcaVaeCodec, fit_pca_vae
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.targets import Target


class Fit(Protocol):
    """From (n, D) weights of a target to a codec with at most so many coordinates."""

    def __call__(
        self,
        weights: Tensor,
        symmetry: OutputSymmetry,
        target: Target,
        rng: torch.Generator,
        *,
        common: int,
        rows: int,
    ) -> Codec: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecKind:
    """How codecs of one kind come to be.

    Args:
        fit: Fits one; the same bits for equal arguments.
        from_tensors: Symmetry and what `Codec.tensors` gave, to the codec.
    """

    fit: Fit
    from_tensors: Callable[[OutputSymmetry, Mapping[str, Tensor]], Codec]


def _pca(
    weights: Tensor,
    symmetry: OutputSymmetry,
    target: Target,  # noqa: ARG001
    rng: torch.Generator,  # noqa: ARG001
    *,
    common: int,
    rows: int,
) -> Codec:
    return fit_pca(weights, symmetry, common=common, rows=rows)


def _behavioural(
    fit: Callable[[Tensor, OutputSymmetry, Behaviour, ChunkVaeConfig, torch.Generator], Codec],
) -> Fit:
    def sized(
        weights: Tensor,
        symmetry: OutputSymmetry,
        target: Target,
        rng: torch.Generator,
        *,
        common: int,
        rows: int,
    ) -> Codec:
        config = ChunkVaeConfig(common=common, rows=rows)
        return fit(weights, symmetry, Behaviour.of(target), config, rng)

    return sized


CODECS: Mapping[str, CodecKind] = MappingProxyType(
    {
        PcaCodec.kind: CodecKind(fit=_pca, from_tensors=PcaCodec.from_tensors),
        ChunkVaeCodec.kind: CodecKind(
            fit=_behavioural(fit_chunk_vae), from_tensors=ChunkVaeCodec.from_tensors
        ),
        PcaVaeCodec.kind: CodecKind(
            fit=_behavioural(fit_pca_vae), from_tensors=PcaVaeCodec.from_tensors
        ),
    }
)
