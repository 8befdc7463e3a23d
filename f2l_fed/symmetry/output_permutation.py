"""The permutation symmetry of the output layer, as a change of coordinates.

Where every site numbers its labels as it likes, permuting the rows of the output layer of a
network and of its probe together gives another pair that is just as true, because the anchor's
output layer is zero. A linear map fitted on all K! permuted copies commutes with permutations,
and by Schur's lemma such a map acts on two parts separately: on what no permutation changes
(all hidden layers and the mean output row) and, with one matrix for all classes, on the
deviations of the rows from their mean. Splitting weights into these parts is therefore worth the
K!-fold augmentation, exactly, and makes the problem smaller instead of larger.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from f2l_fed.targets import Target


@dataclass(frozen=True, slots=True)
class IsotypicParts:
    """Weights in the coordinates of the symmetry.

    Args:
        common: (n, C) float, invariant under permutations of the outputs.
        rows: (n, K, R) float, permuted by them along dimension 1; each column sums to zero.
            K = R = 0 where there is no symmetry.
    """

    common: Tensor
    rows: Tensor

    def permuted(self, order: Tensor) -> IsotypicParts:
        """The same network with output k taken from output ``order[k]``."""
        return IsotypicParts(self.common, self.rows[:, order])


@dataclass(frozen=True, slots=True)
class OutputSymmetry:
    """Splits flat weights into `IsotypicParts` and back; orthonormal, so norms are kept.

    Args:
        hidden: (H,) int64, indices of the weights below the output layer.
        output: (K, R) int64, indices of each output's weights and bias; (0, 0) if off.
        size: D.
    """

    hidden: Tensor
    output: Tensor
    size: int

    @classmethod
    def of(cls, target: Target, *, enabled: bool) -> OutputSymmetry:
        """The symmetry of a target, or the trivial one where labels are shared by all sites."""
        size = target.layout.size
        if not enabled:
            return cls(torch.arange(size), torch.empty(0, 0, dtype=torch.int64), size)
        index = target.layout.unflatten(torch.arange(size))
        columns = [index[target.output_weight].reshape(target.classes, -1)]
        if target.output_bias is not None:
            columns.append(index[target.output_bias].reshape(target.classes, 1))
        output = torch.cat(columns, dim=1)
        hidden = torch.ones(size, dtype=torch.bool)
        hidden[output.reshape(-1)] = False
        return cls(hidden.nonzero().squeeze(1), output, size)

    @property
    def classes(self) -> int:
        """K, or 0 where there is no symmetry."""
        return self.output.shape[0]

    @property
    def rows_alone(self) -> bool:
        """Whether there is nothing but output rows, as in heads on a body."""
        return self.classes > 0 and not len(self.hidden)

    def split(self, weights: Tensor) -> IsotypicParts:
        """(n, D) weights to their parts: common (n, H + R) and rows (n, K, R)."""
        if not self.classes:
            return IsotypicParts(weights, weights.new_empty(len(weights), 0, 0))
        rows = weights[:, self.output]
        mean = rows.mean(dim=1)
        common = torch.cat([weights[:, self.hidden], sqrt(self.classes) * mean], dim=1)
        return IsotypicParts(common, rows - mean[:, None])

    def join(self, parts: IsotypicParts) -> Tensor:
        """The inverse of `split`; (n, D)."""
        if not self.classes:
            return parts.common
        hidden, mean = parts.common.split([len(self.hidden), self.output.shape[1]], dim=1)
        weights = parts.common.new_empty(len(parts.common), self.size)
        weights[:, self.hidden] = hidden
        weights[:, self.output] = parts.rows + mean[:, None] / sqrt(self.classes)
        return weights
