"""Whitened principal components of a zoo's weights, in the coordinates of the output symmetry.

The covariance of all K! permuted copies of the records commutes with the permutations, so its
eigenvectors fall into the two blocks of `f2l_fed.symmetry.output_permutation`, and the components
of one output row serve all K of them. Those of the common part are kept as weights, in the order
of a network's own, so that decoding is one product which writes every weight where it belongs.

The smaller of the two Gram matrices is decomposed. Weights are read a block of columns at a time,
twice, and only a block is ever held in float64: beside the weights and the basis itself a fit
needs memory for one block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from f2l_fed.codec.codec import Codec, CodecKind
from f2l_fed.codec.latent_shape import LatentShape
from f2l_fed.codec.tensor_names import with_prefix, without_prefix
from f2l_fed.symmetry.output_permutation import IsotypicParts, OutputSymmetry
from f2l_fed.targets.target import Target

_WIDEST = 32_768
"""Columns in a block."""

_BLOCK = 2**25
"""Numbers in a block, so that thousands of records make it narrower and not larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrincipalComponents:
    """Principal components of one block of coordinates.

    Args:
        mean: (p,) float32.
        basis: (m, p) float32, orthonormal rows, by falling variance; m <= k.
        scale: (k,) float32, standard deviation along each row of the basis. Coordinates without a
            row are zero and move nothing, so that latents keep their layout.
    """

    mean: Tensor
    basis: Tensor
    scale: Tensor

    def encode(self, x: Tensor) -> Tensor:
        """(…, p) to (…, k), unit variance over the fitted examples."""
        found = (x - self.mean) @ self.basis.T
        return functional.pad(found, (0, len(self.scale) - len(self.basis))) / self.scale

    def decode(self, z: Tensor) -> Tensor:
        """(…, k) to (…, p)."""
        return functional.linear(self._along(z), self.basis.T, self.mean)

    def displacement(self, z: Tensor) -> Tensor:
        """(…, k) to (…, p), how far decoding moves if the latent moves by so much."""
        return self._along(z) @ self.basis

    def truncated(self, rank: int) -> PrincipalComponents:
        """The same without the rows of the basis beyond the first ``rank``."""
        return replace(self, basis=self.basis[:rank].clone())

    def _along(self, z: Tensor) -> Tensor:
        """(…, k) to (…, m), the lengths along the rows of the basis."""
        return (z * self.scale)[..., : len(self.basis)]

    def tensors(self) -> dict[str, Tensor]:
        """The fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> PrincipalComponents:
        """The inverse of `tensors`."""
        return cls(**{field.name: tensors[field.name] for field in fields(cls)})


@dataclass(frozen=True, slots=True, kw_only=True)
class PcaCodec:
    """Linear codec between (n, D) weights and (n, k) latents.

    Args:
        symmetry: Coordinates it works in.
        common: Components of the common part, joined to weights: p = D, all outputs alike.
        rows: Components of the output rows' deviations; p = R.
    """

    kind: ClassVar[str] = "pca"

    symmetry: OutputSymmetry
    common: PrincipalComponents
    rows: PrincipalComponents

    @property
    def shape(self) -> LatentShape:
        """Layout of a latent."""
        return LatentShape(
            common=len(self.common.scale),
            classes=self.symmetry.classes,
            width=len(self.rows.scale),
        )

    def encode(self, weights: Tensor) -> Tensor:
        """(n, D) float32 to (n, k) float32."""
        if len(weights) > 1 and not weights.stride(0):
            # One network, expanded for many draws around it, takes one row of the product.
            return self.encode(weights[:1]).expand(len(weights), -1)
        rows = weights[:, self.symmetry.output]
        deviations = rows - rows.mean(1, keepdim=True)
        return self.shape.join(
            IsotypicParts(self.common.encode(weights), self.rows.encode(deviations))
        )

    def decode(self, latents: Tensor) -> Tensor:
        """(n, k) float32 to (n, D) float32."""
        parts = self.shape.split(latents)
        return self._placed(self.common.decode(parts.common), self.rows.decode(parts.rows))

    def displacement(self, start: Tensor, end: Tensor) -> Tensor:
        """See `f2l_fed.codec.Codec`; one product, for the codec is linear."""
        parts = self.shape.split(end - start)
        return self._placed(
            self.common.displacement(parts.common), self.rows.displacement(parts.rows)
        )

    def _placed(self, weights: Tensor, deviations: Tensor) -> Tensor:
        weights[:, self.symmetry.output] += deviations
        return weights

    def tensors(self) -> dict[str, Tensor]:
        """See `f2l_fed.codec.Codec`."""
        return {
            **with_prefix("common.", self.common.tensors()),
            **with_prefix("rows.", self.rows.tensors()),
        }

    @classmethod
    def from_tensors(cls, symmetry: OutputSymmetry, tensors: Mapping[str, Tensor]) -> PcaCodec:
        """See `f2l_fed.codec.Codec`."""
        return cls(
            symmetry=symmetry,
            common=PrincipalComponents.from_tensors(without_prefix("common.", tensors)),
            rows=PrincipalComponents.from_tensors(without_prefix("rows.", tensors)),
        )


def fit_pca(
    weights: Tensor | Sequence[Tensor], symmetry: OutputSymmetry, *, common: int, rows: int
) -> PcaCodec:
    """Fits a codec.

    Args:
        weights: (n, D) float32, n >= 2; or blocks of its rows in order, each of which may be
            mapped from a file that is larger than the memory.
        symmetry: Coordinates to work in.
        common: Largest number of components of the common part.
        rows: Largest number of components of an output row.
    """
    blocks = [weights] if isinstance(weights, Tensor) else list(weights)

    def read(index: Tensor) -> Tensor:
        return torch.cat([block[:, index] for block in blocks])

    head = OutputSymmetry(
        symmetry.hidden[:0],
        torch.arange(symmetry.output.numel()).view_as(symmetry.output),
        symmetry.output.numel(),
    ).split(read(symmetry.output.flatten()))
    inner = len(symmetry.hidden)

    def common_columns(start: int, stop: int) -> Tensor:
        hidden = read(symmetry.hidden[start:stop])
        mean_rows = head.common[:, max(0, start - inner) : max(0, stop - inner)]
        return torch.cat([hidden, mean_rows], 1)

    n = sum(map(len, blocks))
    shared = _components(common_columns, n, inner + head.common.shape[1], common, centre=True)
    return PcaCodec(
        symmetry=symmetry,
        common=replace(
            shared,
            mean=_joined(symmetry, shared.mean[None])[0],
            basis=_joined(symmetry, shared.basis),
        ),
        rows=principal_components(head.rows.flatten(0, 1), rows, centre=False),
    )


def _joined(symmetry: OutputSymmetry, common: Tensor) -> Tensor:
    return symmetry.join(
        IsotypicParts(common, common.new_zeros(len(common), *symmetry.output.shape))
    )


def principal_components(x: Tensor, count: int, *, centre: bool) -> PrincipalComponents:
    """Principal components of (n, p) float32, at most ``count``; without ``centre``, about zero."""
    n, p = x.shape
    return _components(lambda start, stop: x[:, start:stop], n, p, count, centre=centre)


def _components(
    columns: Callable[[int, int], Tensor], n: int, p: int, count: int, *, centre: bool
) -> PrincipalComponents:
    mean = torch.zeros(p)
    if not n or not p:
        return PrincipalComponents(mean=mean, basis=torch.zeros(0, p), scale=torch.zeros(0))
    width = max(1, min(_WIDEST, _BLOCK // n))
    blocks = [slice(start, min(start + width, p)) for start in range(0, p, width)]
    gram = torch.zeros(min(n, p), min(n, p), dtype=torch.float64)
    if n <= p:
        for block in blocks:
            x = columns(block.start, block.stop)
            if centre:
                mean[block] = x.mean(0)
            centred = (x - mean[block]).double()
            gram += centred @ centred.T
    else:
        x = columns(0, p)
        if centre:
            mean = x.mean(0)
        for rows in x.split(max(_WIDEST, _BLOCK // p)):
            centred = (rows - mean).double()
            gram += centred.T @ centred
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0)[:count], vectors.flip(1)[:, :count]
    kept = values > values[:1].clamp(min=1e-30) * 1e-9
    values, vectors = values[kept], vectors[:, kept]
    if n <= p:
        mix = (vectors / values.sqrt()).float()
        basis = torch.empty(len(values), p)
        for block in blocks:
            basis[:, block] = ((columns(block.start, block.stop) - mean[block]).T @ mix).T
    else:
        basis = vectors.T.float().contiguous()
    return PrincipalComponents(
        mean=mean, basis=basis, scale=(values / n).sqrt().float().contiguous()
    )


def _fit(
    weights: Tensor,
    symmetry: OutputSymmetry,
    target: Target,  # noqa: ARG001
    rng: torch.Generator,  # noqa: ARG001
    *,
    common: int,
    rows: int,
) -> Codec:
    return fit_pca(weights, symmetry, common=common, rows=rows)


PCA = CodecKind(fit=_fit, from_tensors=PcaCodec.from_tensors)
