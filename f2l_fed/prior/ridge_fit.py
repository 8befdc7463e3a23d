"""A fitted ridge regression: its map, and its exact predictions without a group of examples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.matrices.blocks import blocks, parts
from f2l_fed.matrices.columns import Columns, Place, as_columns, place_in_order
from f2l_fed.matrices.workspace import IN_MEMORY, Workspace
from f2l_fed.prior.ridge_map import RidgeMap


@dataclass(frozen=True, slots=True, kw_only=True)
class RidgeFit:
    """A fitted map, and all that its predictions without a group of examples depend on.

    Args:
        map: The map.
        strength: λ that cross-validation chose.
        group: Examples that are left out together.
        basis: (n, r) float64, left singular vectors of the features.
        singular: (r,) float64, singular value of each.
        mixture: (n, k) float64, weights of the examples' outputs in the map's right factor.
        mean_weight: Weight of every example in the intercept.
    """

    map: RidgeMap
    strength: float
    group: int
    basis: Tensor
    singular: Tensor
    mixture: Tensor
    mean_weight: float

    @property
    def kept(self) -> Tensor:
        """(r,) float64, the share of each singular vector that λ leaves, from 0 to 1."""
        return shrinkage(self.singular, self.strength)

    def held_out(
        self,
        y: Tensor | Columns,
        into: Tensor | None = None,
        place: Place = place_in_order,
        work: Workspace = IN_MEMORY,
    ) -> Tensor:
        """For each example the prediction of the map fitted without its group; exact, no refit.

        Args:
            y: (n, q), the outputs of the fit.
            into: The matrix to write them into; None for a new one.
            place: Writes some columns into it.
            work: Where it lies, and who does it.

        Returns:
            (n, q) float32, or ``into``.
        """
        n, q = y.shape
        into = work.empty(n, q) if into is None else into
        # Of fewer examples than twice the directions, one product with a matrix of their weights.
        weights = None
        if n < 2 * len(self.singular):
            weights = self._without_group(self.basis.T, torch.eye(n, dtype=torch.float64))
        given = (as_columns(y), self, weights, into, place)
        for _ in work.each(_predict_left_out, parts(n, q), *given):
            pass
        return into

    def _without_group(self, seen: Tensor, y: Tensor) -> Tensor:
        return without_group(self.basis, self.kept, seen, y, self.group, self.mean_weight)

    def weights(self, x: Tensor) -> Tensor:
        """Weight of every example's output in a prediction: map(x) = weights(x) y.

        Args:
            x: (m, p) float32.

        Returns:
            (m, n) float64.
        """
        coordinates = (x - self.map.x_mean) @ self.map.left
        return coordinates.double() @ self.mixture.T + self.mean_weight

    def held_out_weights(self, group: slice) -> Tensor:
        """The same for one group of examples and the map fitted without them.

        Args:
            group: Where they lie.

        Returns:
            (length of the group, n) float64, zero at the group's own examples.
        """
        hat = (self.basis[group] * self.kept) @ self.basis.T + self.mean_weight
        own = hat[:, group]
        weights: Tensor = torch.linalg.solve(torch.eye(len(own), dtype=own.dtype) - own, hat)
        weights[:, group] = 0
        return weights


def _predict_left_out(
    part: slice, y: Columns, fit: RidgeFit, weights: Tensor | None, into: Tensor, place: Place
) -> None:
    for some in blocks(len(fit.basis), part):
        outputs = y.block(columns=some).double()
        # As the fit has found it: the mean where there is an intercept.
        mean = outputs.mean(0) if fit.mean_weight else outputs.new_zeros(outputs.shape[1])
        outputs = outputs - mean
        found = (
            fit._without_group(fit.basis.T @ outputs, outputs)
            if weights is None
            else weights @ outputs
        )
        place(into, some, (found + mean).float())


def shrinkage(s: Tensor, strength: float) -> Tensor:
    """(r,), the share of each direction that a strength leaves, by (r,) singular values."""
    return s**2 / (s**2 + strength)


def without_group(
    u: Tensor, kept: Tensor, seen: Tensor, y: Tensor, group: int, offset: float
) -> Tensor:
    """(n, q) float64, predictions of the fits that leave a group out: y - (I - H_gg)⁻¹ e_g."""
    residual = y - u @ (kept[:, None] * seen)
    blocks = u.view(len(u) // group, group, u.shape[1])
    hat = blocks * kept @ blocks.transpose(1, 2) + offset
    errors = residual.view(-1, group, residual.shape[1])
    if group == 1:
        return y - (errors / (1 - hat)).view_as(residual)
    eye = torch.eye(group, dtype=torch.float64)
    solved: Tensor = torch.linalg.solve(eye - hat, errors)
    return y - solved.reshape(residual.shape)
