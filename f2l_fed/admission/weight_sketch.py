"""Weight sketches: the parts of a weight vector, and small vectors that stand for networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.core.random_streams import generator_for
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.targets import Target
from f2l_fed.targets.layout import layer_numbers

_BUCKETS = 256


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightSketch:
    """Positions of layers and outputs in a weight vector, and the random signs of its sketches.

    Args:
        size: D.
        layers: (D,) int64, number of each weight's layer.
        hidden: (H,) int64, indices of the weights below the output layer.
        output: (K, R) int64, indices of each output's weights.
        buckets: (H,) int64, bucket of each hidden weight in a sketch.
        signs: (H,) float32, +1 or -1, sign of each hidden weight in a sketch.
        directions: (R, 256) float32, random directions in the space of an output's weights, for
            networks without hidden weights; (R, 0) for others.
    """

    size: int
    layers: Tensor
    hidden: Tensor
    output: Tensor
    buckets: Tensor
    signs: Tensor
    directions: Tensor

    @classmethod
    def of(cls, target: Target, lineage: str) -> WeightSketch:
        """The sketch of a target's networks; the lineage seeds buckets and signs."""
        split = OutputSymmetry.of(target, enabled=True)
        rng = generator_for(lineage, "sketch")
        count = len(split.hidden)
        return cls(
            size=split.size,
            layers=layer_numbers(target.layout),
            hidden=split.hidden,
            output=split.output,
            buckets=torch.randint(_BUCKETS, (count,), generator=rng),
            signs=2.0 * torch.randint(2, (count,), generator=rng) - 1,
            directions=torch.randn(split.output.shape[1], 0 if count else _BUCKETS, generator=rng),
        )

    def output_rows(self, vectors: Tensor) -> Tensor:
        """(m, D) to (m, K R), the output layer without the mean over outputs."""
        rows = vectors[:, self.output]
        return (rows - rows.mean(dim=1, keepdim=True)).flatten(1)

    def layer_norms(self, vectors: Tensor) -> Tensor:
        """(m, D) to (m, L) float64, length within each layer."""
        squares = torch.zeros(len(vectors), int(self.layers[-1]) + 1, dtype=torch.float64)
        return squares.index_add_(1, self.layers, vectors.double().square()).sqrt()

    def count_sketch(self, vectors: Tensor) -> Tensor:
        """(m, D) to (m, 256) float32, hidden weights by random signs into buckets.

        Distances and inner products are kept in expectation, with a relative error of about
        sqrt(2 / 256) = 9%; equal vectors have equal sketches, and permuting outputs changes none.

        Reference:
            Charikar, Chen, Farach-Colton: Finding frequent items in data streams. ICALP 2002.
        """
        sums = torch.zeros(len(vectors), _BUCKETS, dtype=torch.float64)
        signed = vectors[:, self.hidden].double() * self.signs
        return sums.index_add_(1, self.buckets, signed).float()

    def signature(self, vectors: Tensor) -> Tensor:
        """(m, D) to (m, 256 + K): the sketch and the outputs' lengths in ascending order.

        Without hidden weights the sketch is that of the outputs together: their root sum of
        squares along random directions, which no permutation of them changes.

        The second part tells apart networks that share their hidden layers, however their
        outputs are numbered.
        """
        rows = vectors[:, self.output]
        lengths = rows.norm(dim=2).sort(dim=1).values
        if self.directions.shape[1]:
            sketch = (rows @ self.directions).norm(dim=1)
        else:
            sketch = self.count_sketch(vectors)
        return torch.cat([sketch, lengths], dim=1)
