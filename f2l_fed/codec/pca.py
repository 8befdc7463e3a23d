"""Whitened principal components of a zoo's weights, in the coordinates of the output symmetry.

The covariance of all K! permuted copies of the records commutes with the permutations, so its
eigenvectors fall into the two blocks of `f2l_fed.symmetry.output_permutation`, and the components
of one output row serve all K of them. Those of the common part are kept as weights, in the order
of a network's own, so that decoding is one product which writes every weight where it belongs.

The smaller of the two Gram matrices is decomposed. Weights are read a block of columns at a time,
twice, and only a block is ever held in float64: beside the weights and the basis itself, either of
which may lie on a disk, a fit needs memory for one block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import prod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from f2l_fed.codec.codec import Codec, CodecKind
from f2l_fed.codec.latent_shape import LatentShape
from f2l_fed.codec.tensor_names import with_prefix, without_prefix
from f2l_fed.matrices.blocks import blocks, parts
from f2l_fed.matrices.columns import Columns, Place, Stored, place_in_order
from f2l_fed.matrices.gram import gram_matrix
from f2l_fed.matrices.workspace import IN_MEMORY, Workspace
from f2l_fed.symmetry.common_part import CommonPart, PlacedCommonPart, rows_of
from f2l_fed.symmetry.output_permutation import IsotypicParts, OutputSymmetry
from f2l_fed.targets.target import Target


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
        found = x.new_zeros(*x.shape[:-1], len(self.basis))
        for some in blocks(prod(x.shape[:-1]), x.shape[-1]):
            found = found + (x[..., some] - self.mean[some]) @ self.basis[:, some].T
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
    weights: Tensor,
    symmetry: OutputSymmetry,
    *,
    common: int,
    rows: int,
    work: Workspace = IN_MEMORY,
) -> PcaCodec:
    """Fits a codec.

    Args:
        weights: (n, D) float32, n >= 2.
        symmetry: Coordinates to work in.
        common: Largest number of components of the common part.
        rows: Largest number of components of an output row.
        work: Where the basis lies, and who works on parts of the weights.
    """
    of, place = Stored(weights), PlacedCommonPart(symmetry)
    deviations = rows_of(of, symmetry).flatten(0, 1)
    return PcaCodec(
        symmetry=symmetry,
        common=_components(CommonPart(of, symmetry), common, True, symmetry.size, place, work),
        rows=principal_components(deviations, rows, centre=False),
    )


def principal_components(x: Tensor, count: int, *, centre: bool) -> PrincipalComponents:
    """Principal components of (n, p) float32, at most ``count``; without ``centre``, about zero."""
    return _components(Stored(x), count, centre, x.shape[1], place_in_order, IN_MEMORY)


def _components(
    x: Columns, count: int, centre: bool, width: int, place: Place, work: Workspace
) -> PrincipalComponents:
    """The components as rows of so many columns, in which ``place`` writes those of x."""
    n, p = x.shape
    mean = torch.zeros(1, width)
    if not n or not p:
        return PrincipalComponents(mean=mean[0], basis=torch.zeros(0, width), scale=torch.zeros(0))
    gram = gram_matrix(x, centre=centre, work=work)
    values, vectors = torch.linalg.eigh(gram.matrix)
    values, vectors = values.flip(0)[:count], vectors.flip(1)[:, :count]
    kept = values > values[:1].clamp(min=1e-30) * 1e-9
    values, vectors = values[kept], vectors[:, kept]
    basis, means = work.empty(len(values), width), gram.mean.float()
    place(mean, slice(0, p), means[None])
    if gram.of_rows:
        mix = (vectors / values.sqrt()).float()
        for _ in work.each(_write_basis, parts(n, p), x, means, mix, basis, place):
            pass
    else:
        place(basis, slice(0, p), vectors.T.float())
    return PrincipalComponents(
        mean=mean[0], basis=basis, scale=(values / n).sqrt().float().contiguous()
    )


def _write_basis(
    part: slice, x: Columns, mean: Tensor, mix: Tensor, basis: Tensor, place: Place
) -> None:
    for some in blocks(len(mix), part):
        place(basis, some, ((x.block(columns=some) - mean[some]).T @ mix).T)


def _fit(
    weights: Tensor,
    symmetry: OutputSymmetry,
    target: Target,  # noqa: ARG001
    rng: torch.Generator,  # noqa: ARG001
    *,
    common: int,
    rows: int,
    work: Workspace = IN_MEMORY,
) -> Codec:
    return fit_pca(weights, symmetry, common=common, rows=rows, work=work)


PCA = CodecKind(fit=_fit, from_tensors=PcaCodec.from_tensors)
