"""Canonical weights of networks that differ in the order and scale of hidden units only.

Every network is balanced, so that each unit's incoming weights are as long as its outgoing ones;
then its units are put in the order in which they are most like those of a reference network;
then they get the scales by which the reference itself differs from its balanced form. The
reference is thereby its own code, and networks near it hardly change.

The order is found by coordinate descent, whose end depends on its start. So the start is one that
no reordering of the network changes: space by space from the input on, units are matched by the
weights that connect them to places already settled. From there on all copies of one network are
the same network, and the descent takes them to the same end.

References:
    Ainsworth et al.: Git Re-Basin. arXiv 2209.04836, algorithm 1.
    Neyshabur et al.: Path-SGD. arXiv 1506.02617, section 2 (rescaling of rectified units).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.symmetry.channel_tracing import hidden_spaces
from f2l_fed.symmetry.hidden_units import Axis, HiddenSpace, Tensors
from f2l_fed.targets import Target
from f2l_fed.targets.layout import WeightLayout

_SWEEPS = 1_000
_BALANCED = 1e-10
_GAIN = 1e-9
"""Smallest gain worth another order, relative to the reference: below, rounding would decide."""


@dataclass(frozen=True, slots=True)
class SpaceMatching:
    """Comparison of the units of one space with those of the reference.

    Args:
        space: The units.
        first: Axes to compare while later spaces still are in any order.
        all: Axes to compare when every space has some order.
    """

    space: HiddenSpace
    first: tuple[Axis, ...]
    all: tuple[Axis, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Canonicaliser:
    """Maps networks of one target to their canonical weights.

    Args:
        layout: Of the weights.
        matchings: One for each space, from the input to the output.
        reference: The balanced reference, float64, by name.
        scales: (size,) float64 for each space, factors of balancing the reference's units.
    """

    layout: WeightLayout
    matchings: tuple[SpaceMatching, ...]
    reference: Tensors
    scales: tuple[Tensor, ...]

    @classmethod
    def of(cls, target: Target, reference: Tensor) -> Canonicaliser:
        """Prepares the mapping.

        Args:
            target: The network.
            reference: (D,) float32, a trained network of the target.

        Raises:
            TargetError: If the target's symmetries aren't known.
        """
        spaces = hidden_spaces(target)
        balanced, scales = _balanced(spaces, target.layout.unflatten(reference.double()))
        return cls(
            layout=target.layout,
            matchings=_matchings(spaces, target.statistics),
            reference=balanced,
            scales=scales,
        )

    def __call__(self, weights: Tensor) -> Tensor:
        """Canonical weights; they predict what the given ones do.

        Args:
            weights: (n, D) float32.

        Returns:
            (n, D) float32; equal up to rounding for networks that differ by a reordering and
            rescaling of hidden units, if no two units of a network are alike.
        """
        if not self.matchings:
            return weights.clone()
        return torch.stack([self._code(row) for row in weights])

    def _code(self, weights: Tensor) -> Tensor:
        spaces = [matching.space for matching in self.matchings]
        tensors, _ = _balanced(spaces, self.layout.unflatten(weights.double()))
        tensors = self._descended(self._started(tensors))
        for space, scale in zip(spaces, self.scales, strict=True):
            tensors = space.scale(tensors, 1 / scale) if space.scalable else tensors
        return self.layout.flatten(tensors)

    def _started(self, tensors: Tensors) -> Tensors:
        for matching in self.matchings:
            space = matching.space
            order = space.best_order(self._gain(matching.first, tensors))
            tensors = space.reorder(tensors, order)
        return tensors

    def _descended(self, tensors: Tensors) -> Tensors:
        least = _GAIN * float(sum(tensor.square().sum() for tensor in self.reference.values()))
        for _ in range(_SWEEPS):
            moved = False
            for matching in self.matchings:
                space = matching.space
                order = space.best_order(self._gain(matching.all, tensors))
                trial = space.reorder(tensors, order)
                # Where a layer leads from a space to itself, the gains are only a first order
                # of what an order brings.
                if self._likeness(matching, trial) > self._likeness(matching, tensors) + least:
                    tensors, moved = trial, True
            if not moved:
                break
        return tensors

    def _gain(self, axes: tuple[Axis, ...], tensors: Tensors) -> Tensor:
        return torch.stack(
            [
                axis.rows(self.reference[axis.name]) @ axis.rows(tensors[axis.name]).T
                for axis in axes
            ]
        ).sum(0)

    def _likeness(self, matching: SpaceMatching, tensors: Tensors) -> float:
        names = sorted({axis.name for axis in matching.all})
        return sum(float((self.reference[name] * tensors[name]).sum()) for name in names)


def _matchings(
    spaces: Sequence[HiddenSpace], measured: Collection[str]
) -> tuple[SpaceMatching, ...]:
    # What batch normalisation has measured depends on the examples: no unit is known by it.
    compared = [tuple(axis for axis in space.axes if axis.name not in measured) for space in spaces]
    names = [[axis.name for axis in axes] for axes in compared]
    last = {name: index for index, here in enumerate(names) for name in here}
    return tuple(
        SpaceMatching(
            space,
            tuple(a for a in axes if last[a.name] == index and names[index].count(a.name) == 1),
            axes,
        )
        for index, (space, axes) in enumerate(zip(spaces, compared, strict=True))
    )


def _balanced(
    spaces: Sequence[HiddenSpace], tensors: Tensors
) -> tuple[Tensors, tuple[Tensor, ...]]:
    """Scales every unit so that its incoming and outgoing weights have the same norm.

    These are the weights with the smallest norm among all that rescaling reaches; in the
    logarithms of the scales the norm is convex, so there is one such point and sweeps find it.
    """
    scales = [torch.ones(space.size, dtype=torch.float64) for space in spaces]
    for _ in range(_SWEEPS):
        largest = 0.0
        for index, space in enumerate(spaces):
            if not space.scalable:
                continue
            squares = torch.zeros(2, space.size, dtype=torch.float64)
            for axis in space.axes:
                squares[axis.dimension] += axis.rows(tensors[axis.name]).square().sum(1)
            # A unit that nothing reaches or leaves has no scale.
            factor = (squares[1] / squares[0]).pow(0.25)
            factor = torch.where((squares > 0).all(0), factor, 1.0)
            tensors = space.scale(tensors, factor)
            scales[index] *= factor
            largest = max(largest, float(factor.log().abs().max()))
        if largest < _BALANCED:
            break
    return tensors, tuple(scales)
