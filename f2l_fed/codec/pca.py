"""Whitened principal components of a zoo's weights, in the coordinates of the output symmetry.

The covariance of all K! permuted copies of the records commutes with the permutations, so its
eigenvectors fall into the two blocks of `f2l_fed.symmetry`, and the components of one output row
serve all K of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.codec.latent import LatentShape
from f2l_fed.symmetry import OutputSymmetry, Parts

_BLOCK = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """Principal components of one block.

    Args:
        mean: (p,) float32.
        basis: (k, p) float32, orthonormal rows, by falling variance.
        scale: (k,) float32, standard deviation along each row of the basis.
    """

    mean: Tensor
    basis: Tensor
    scale: Tensor

    def encode(self, x: Tensor) -> Tensor:
        """(…, p) to (…, k), unit variance over the fitted examples."""
        return (x - self.mean) @ self.basis.T / self.scale

    def decode(self, z: Tensor) -> Tensor:
        """(…, k) to (…, p)."""
        return (z * self.scale) @ self.basis + self.mean


@dataclass(frozen=True, slots=True, kw_only=True)
class PcaCodec:
    """Linear codec between (n, D) weights and (n, k) latents.

    Args:
        symmetry: Coordinates it works in.
        common: Components of the common part.
        rows: Components of the output rows' deviations.
    """

    symmetry: OutputSymmetry
    common: Components
    rows: Components

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
        parts = self.symmetry.split(weights)
        return self.shape.join(
            Parts(self.common.encode(parts.common), self.rows.encode(parts.rows))
        )

    def decode(self, latents: Tensor) -> Tensor:
        """(n, k) float32 to (n, D) float32."""
        parts = self.shape.split(latents)
        return self.symmetry.join(
            Parts(self.common.decode(parts.common), self.rows.decode(parts.rows))
        )


def fit_pca(weights: Tensor, symmetry: OutputSymmetry, *, common: int, rows: int) -> PcaCodec:
    """Fits a codec.

    Args:
        weights: (n, D) float32, n >= 2.
        symmetry: Coordinates to work in.
        common: Largest number of components of the common part.
        rows: Largest number of components of an output row.
    """
    parts = symmetry.split(weights)
    return PcaCodec(
        symmetry=symmetry,
        common=_components(parts.common, common, centre=True),
        rows=_components(parts.rows.flatten(0, 1), rows, centre=False),
    )


def _components(x: Tensor, count: int, *, centre: bool) -> Components:
    n, p = x.shape
    mean = x.mean(0) if centre else x.new_zeros(p)
    if not n or not p:
        return Components(mean=mean, basis=x.new_zeros(0, p), scale=x.new_zeros(0))
    if n <= p:
        gram = torch.zeros(n, n, dtype=torch.float64)
        for start in range(0, p, _BLOCK):
            block = (x[:, start : start + _BLOCK] - mean[start : start + _BLOCK]).double()
            gram += block @ block.T
    else:
        centred = (x - mean).double()
        gram = centred.T @ centred
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0)[:count], vectors.flip(1)[:, :count]
    kept = values > values[:1].clamp(min=1e-30) * 1e-9
    values, vectors = values[kept], vectors[:, kept]
    if n <= p:
        basis = ((x - mean).T @ (vectors / values.sqrt()).float()).T
    else:
        basis = vectors.T.float()
    return Components(
        mean=mean, basis=basis.contiguous(), scale=(values / n).sqrt().float().contiguous()
    )
