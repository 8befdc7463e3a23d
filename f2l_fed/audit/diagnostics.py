"""Diagnostics of a generator: collapse, copying and dead conditioning."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from f2l_fed.errors import UsageError
from f2l_fed.matrices.blocks import blocks, parts
from f2l_fed.matrices.workspace import IN_MEMORY, Workspace


def dispersion(generated: Tensor, real: Tensor) -> float:
    """Spread of generated over spread of real networks or latents, each around its own mean.

    0 is collapse onto one network, 1 is as it should be.

    Args:
        generated: (m, D) float32; m >= 2.
        real: (n, D) float32; n >= 2.

    Raises:
        UsageError: If there are too few, or the real ones are all equal.

    >>> real = torch.tensor([[0.0], [2.0], [4.0]])
    >>> dispersion(7 + real / 2, real)
    0.5
    """
    _require_several(real, "real", 2)
    return _dispersion(generated, _spread(real))


def _dispersion(generated: Tensor, spread: float) -> float:
    _require_several(generated, "generated", 2)
    if spread == 0:
        raise UsageError("the real networks are all equal, so their spread is zero")
    return _spread(generated) / spread


def nearest_distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distance from each row of one matrix to the nearest row of another.

    Args:
        a: (m, D) float32.
        b: (n, D) float32; n >= 1.

    Returns:
        (m,) float64; exactly 0 for a copy.

    >>> nearest_distances(torch.tensor([[0.0], [5.0]]), torch.tensor([[1.0], [5.0]])).tolist()
    [1.0, 0.0]
    """
    _require_several(b, "b", 1)
    return _distances_to(a, b, _squared_distances(a, b).argmin(dim=1))


def leave_one_out_distances(real: Tensor) -> Tensor:
    """Euclidean distance from each row to the nearest other row, the yardstick for copies.

    Args:
        real: (n, D) float32; n >= 2.

    Returns:
        (n,) float64.
    """
    _require_several(real, "real", 2)
    others = _squared_distances(real, real).fill_diagonal_(torch.inf)
    return _distances_to(real, real, others.argmin(dim=1))


def memorisation_z(generated: Tensor, train: Tensor, held_out: Tensor) -> float:
    """Whether generated networks lie nearer to the training records than new networks do.

    The Mann-Whitney statistic of the distances to the nearest training record, as a z-score
    corrected for ties. Around 0 is innocent, far below 0 is copying, far above 0 is underfitting.
    Fewer than 7 networks on both sides can't fall below -3, so ask for more.

    Args:
        generated: (m, D) float32; m >= 1.
        train: (n, D) float32, what the generator was fitted on; n >= 1.
        held_out: (h, D) float32, equally real, but never fitted on; h >= 1.

    Reference:
        Meehan, Chaudhuri, Dasgupta: A non-parametric test to detect data-copying in generative
        models. AISTATS 2020. Zeng et al., arXiv 2506.07998.
    """
    _require_several(generated, "generated", 1)
    _require_several(held_out, "held_out", 1)
    near = torch.cat([nearest_distances(generated, train), nearest_distances(held_out, train)])
    m, h = len(generated), len(held_out)
    _, place, ties = torch.unique(near.double(), return_inverse=True, return_counts=True)
    ties = ties.double()
    # Those that are equal share the middle of their ranks.
    ranks = (ties.cumsum(0) - (ties - 1) / 2)[place]
    above = float(ranks[:m].sum()) - m * (m + 1) / 2 - m * h / 2
    total = m + h
    correction = float((ties**3 - ties).sum()) / (total * (total - 1))
    variance = m * h / 12 * (total + 1 - correction)
    return above / sqrt(variance) if variance > 0 else 0.0


def max_error_iou(errors_a: Tensor, errors_b: Tensor) -> Tensor:
    """Overlap of the errors of each network with those of the most similar of some others.

    Networks with few errors overlap little by chance, so a value near 1 betrays a copy even where
    symmetries hide it from a distance between weights.

    Args:
        errors_a: (m, t) bool, true where a network's prediction is wrong.
        errors_b: (n, t) bool, the same inputs, the networks to compare with; n >= 1.

    Returns:
        (m,) float64, largest |A ∩ B| / |A ∪ B|; 0 where neither errs.

    >>> a = torch.tensor([[True, True, False, False]])
    >>> max_error_iou(a, torch.tensor([[False, True, True, False]])).tolist()
    [0.3333333333333333]
    """
    _require_several(errors_b, "errors_b", 1)
    a, b = errors_a.double(), errors_b.double()
    both = a @ b.T
    either = a.sum(1)[:, None] + b.sum(1) - both
    return (both / either.clamp(min=1)).max(dim=1).values


def explained(weights: Tensor, expected: Tensor) -> float:
    """Share of the squared error of the other networks' mean that predictions save.

    Args:
        weights: (n, D) float32; n >= 2.
        expected: (n, D) float32, a prediction for each row without that row.

    Returns:
        1 is perfect, 0 is as good as the mean of the other rows, negative is worse.
    """
    _require_several(weights, "weights", 2)
    return _squares(weights, expected).explained


@dataclass(frozen=True, slots=True)
class _Squares:
    """Sums of squares over all weights of n networks.

    Args:
        count: n.
        error: Of what predictions miss.
        moved: Of what they would miss, were each that of the network before.
        spread: Of the networks around their mean.
    """

    count: int
    error: float = 0.0
    moved: float = 0.0
    spread: float = 0.0

    def __add__(self, other: _Squares) -> _Squares:
        return _Squares(
            self.count,
            self.error + other.error,
            self.moved + other.moved,
            self.spread + other.spread,
        )

    @property
    def explained(self) -> float:
        return 1 - self.error / self._null

    @property
    def conditioning(self) -> float:
        return (self.moved - self.error) / self._null + 2 / self.count

    @property
    def _null(self) -> float:
        # Left-one-out as well: x - mean of the others = n / (n - 1) (x - mean).
        return (self.count / (self.count - 1)) ** 2 * self.spread or 1e-30


def _squares(weights: Tensor, expected: Tensor, work: Workspace = IN_MEMORY) -> _Squares:
    found = work.each(_squares_of, parts(*weights.shape), weights, expected)
    return sum(found, _Squares(len(weights)))


def _squares_of(part: slice, weights: Tensor, expected: Tensor) -> _Squares:
    found = _Squares(len(weights))
    for some in blocks(len(weights), part):
        block, given = weights[:, some].double(), expected[:, some].double()
        found += _Squares(
            len(weights),
            float((block - given).square().sum()),
            float((block - given.roll(1, dims=0)).square().sum()),
            float((block - block.mean(0)).square().sum()),
        )
    return found


def conditioning(weights: Tensor, held_out_expected: Tensor) -> float:
    """Worth of the right context: variance explained with it, less that with a wrong one.

    The wrong context is that of the next site. 0 is dead conditioning: the small advantage that the
    mean of all others but the next one has, because it contains the network itself, is taken off.

    Args:
        weights: (n, D) float32, one network per site; n >= 2.
        held_out_expected: (n, D) float32, each predicted from its context without its record.
    """
    _require_several(weights, "weights", 2)
    return _squares(weights, held_out_expected).conditioning


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Figures of a release that the gate judges.

    Args:
        explained: See `explained`, on held-out predictions.
        conditioning: See `conditioning`.
        dispersion: See `dispersion`.
        memorisation_z: See `memorisation_z`; None where no networks were held out.
    """

    explained: float
    conditioning: float
    dispersion: float
    memorisation_z: float | None = None

    @classmethod
    def of(
        cls,
        weights: Tensor,
        expected: Tensor,
        generated: Tensor,
        held_out: Tensor | None = None,
        work: Workspace = IN_MEMORY,
    ) -> Audit:
        """Takes all figures.

        Args:
            weights: (n, D) float32, what the generator was fitted on, one network per site.
            expected: (n, D) float32, each predicted without its record.
            generated: (m, D) float32, networks drawn for the same contexts.
            held_out: (h, D) float32, networks that the generator has never seen.
            work: Who works on parts of the networks.
        """
        _require_several(weights, "weights", 2)
        squares = _squares(weights, expected, work)
        return cls(
            explained=squares.explained,
            conditioning=squares.conditioning,
            dispersion=_dispersion(generated, sqrt(squares.spread / (len(weights) - 1))),
            memorisation_z=(
                None if held_out is None else memorisation_z(generated, weights, held_out)
            ),
        )

    def figures(self) -> dict[str, float]:
        """The figures by name, without those that were not taken."""
        figures = {
            "explained": self.explained,
            "conditioning": self.conditioning,
            "dispersion": self.dispersion,
        }
        return (
            figures
            if self.memorisation_z is None
            else figures | {"memorisation_z": self.memorisation_z}
        )


def _require_several(rows: Tensor, name: str, minimum: int) -> None:
    if len(rows) < minimum:
        raise UsageError(
            f"{name} has too few rows", expected=f"{minimum} or more", got=str(len(rows))
        )


def _spread(rows: Tensor) -> float:
    # Of the sample, not of a population: a handful of networks must not look collapsed.
    total = 0.0
    for some in blocks(*rows.shape):
        block = rows[:, some].double()
        total += float((block - block.mean(dim=0)).square().sum())
    return sqrt(total / (len(rows) - 1))


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """(m, n) float64, by blocks of columns; good for finding the nearest, not for its distance."""
    squares = torch.zeros(len(a), len(b), dtype=torch.float64)
    for some in blocks(len(a) + len(b), a.shape[1]):
        left, right = a[:, some].double(), b[:, some].double()
        centre = right.mean(dim=0)
        left, right = left - centre, right - centre
        squares += left.square().sum(1)[:, None] + right.square().sum(1) - 2 * left @ right.T
    return squares


def _distances_to(a: Tensor, b: Tensor, chosen: Tensor) -> Tensor:
    """(m,) float64: from row i of a to row chosen[i] of b, without cancellation."""
    pairs = zip(a, b[chosen], strict=True)
    found = [(left.double() - right).norm() for left, right in pairs]
    return torch.stack(found) if found else torch.zeros(0, dtype=torch.float64)
