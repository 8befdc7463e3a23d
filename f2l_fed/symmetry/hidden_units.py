"""Spaces of hidden units that may change places, and their action on a network's tensors.

The units that one layer puts out and the next takes in form a `HiddenSpace`. Giving them
another order in every tensor that they occur in changes no prediction;
`f2l_fed.symmetry.channel_tracing` finds the spaces.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.symmetry.assignment import assignment

Tensors = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Axis:
    """A dimension of a tensor that runs over the units of a space.

    Args:
        name: Of the tensor.
        dimension: 0 where a layer puts the units out, 1 where it takes them in.
        block: Consecutive entries of each unit; more than one behind a flattened image.

    >>> Axis("w", 1, 2).rows(torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])).tolist()
    [[1, 2, 5, 6], [3, 4, 7, 8]]
    """

    name: str
    dimension: int
    block: int

    def rows(self, tensor: Tensor) -> Tensor:
        """The tensor as one row for each unit."""
        by_unit = tensor.unflatten(self.dimension, (-1, self.block))
        rows: Tensor = by_unit.movedim(self.dimension, 0).flatten(1)
        return rows

    def reordered(self, tensor: Tensor, order: Tensor) -> Tensor:
        """The tensor with unit ``order[i]`` in place i."""
        by_unit = tensor.unflatten(self.dimension, (-1, self.block))
        moved: Tensor = by_unit.index_select(self.dimension, order)
        return moved.flatten(self.dimension, self.dimension + 1)

    def scaled(self, tensor: Tensor, factor: Tensor) -> Tensor:
        """The tensor with the entries of each unit times its factor."""
        shape = [1] * tensor.ndim
        shape[self.dimension] = -1
        return tensor * factor.repeat_interleave(self.block).view(shape)


@dataclass(frozen=True, slots=True)
class HiddenSpace:
    """Hidden units that may change places.

    Args:
        size: How many.
        levels: Lengths of runs of units that stay together, falling, each a divisor of the one
            before: the groups of group normalisation, which may change places as a whole.
        axes: Where the units occur.
        scalable: Whether a unit may also be multiplied by a positive number, if what takes it in
            is divided by it.
    """

    size: int
    levels: tuple[int, ...]
    axes: tuple[Axis, ...]
    scalable: bool

    def reorder(self, tensors: Tensors, order: Tensor) -> Tensors:
        """The tensors with unit ``order[i]`` in place i; those without the units are shared."""
        changed = dict(tensors)
        for axis in self.axes:
            changed[axis.name] = axis.reordered(changed[axis.name], order)
        return changed

    def scale(self, tensors: Tensors, factor: Tensor) -> Tensors:
        """The tensors with each unit times its positive factor, and its consumers divided by it."""
        changed = dict(tensors)
        for axis in self.axes:
            by = 1 / factor if axis.dimension else factor
            changed[axis.name] = axis.scaled(changed[axis.name], by)
        return changed

    def best_order(self, gain: Tensor) -> Tensor:
        """The permitted order with the largest sum of gains.

        Args:
            gain: (size, size), what unit j earns in place i.

        Returns:
            (size,) int64, the unit for each place.

        >>> gain = torch.tensor([[0.0, 2.0, 9.0, 0.0], [3.0, 0.0, 0.0, 1.0],
        ...                      [9.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0]])
        >>> HiddenSpace(4, (), (), False).best_order(gain).tolist()
        [2, 3, 0, 1]
        >>> HiddenSpace(4, (2,), (), False).best_order(gain).tolist()
        [2, 3, 0, 1]
        """
        return _best(gain.double(), self.levels)


def _best(gain: Tensor, levels: tuple[int, ...]) -> Tensor:
    if not levels:
        return assignment(gain, maximize=True)
    length, finer = levels[0], levels[1:]
    runs = len(gain) // length
    blocks = gain.view(runs, length, runs, length).transpose(1, 2)
    # Whatever the order of the runs, each has its own best order inside.
    inside = [[_best(blocks[i, j], finer) for j in range(runs)] for i in range(runs)]
    totals = torch.stack(
        [
            torch.stack([blocks[i, j].gather(1, inside[i][j][:, None]).sum() for j in range(runs)])
            for i in range(runs)
        ]
    )
    across = _best(totals, ())
    return torch.cat([j * length + inside[i][j] for i, j in enumerate(across.tolist())])
