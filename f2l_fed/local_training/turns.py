"""Turns and inversions of images: transforms of a whole task that keep its labels apart.

A task seen by a turned camera, or as a negative, is another task that is just as true. A site gives
its body episodes of all eight, and its heads are made for each of them in a fixed order.
"""

from __future__ import annotations

import torch
from torch import Tensor


def turned(x: Tensor, turns: int, inverted: bool) -> Tensor:
    """Images after quarter turns, and as negatives.

    Args:
        x: (n, C, S, S) float32 in [0, 1].
        turns: Quarter turns, 0 to 3.
        inverted: Whether black becomes white.

    >>> turned(torch.tensor([[[[0.0, 1.0], [0.0, 0.0]]]]), 2, True).tolist()
    [[[[1.0, 1.0], [0.0, 1.0]]]]
    """
    seen = torch.rot90(x, turns, (-2, -1)) if turns else x
    return (1 - seen if inverted else seen).contiguous()


def fixed_turns(
    input_shape: tuple[int, ...], turns: bool, inversion: bool
) -> tuple[tuple[int, bool], ...]:
    """The transforms of a site's tasks in their fixed order, the untouched one first.

    Args:
        input_shape: Of one input: square images can be turned, images inverted, vectors neither.
        turns: Whether turns are used.
        inversion: Whether inversions are.

    >>> len(fixed_turns((1, 28, 28), True, True)), fixed_turns((16,), True, True)
    (8, ((0, False),))
    """
    image = len(input_shape) == 3
    quarters = range(4) if turns and image and input_shape[1] == input_shape[2] else range(1)
    negatives = (False, True) if inversion and image else (False,)
    return tuple((quarter, negative) for negative in negatives for quarter in quarters)


def drawn_turn(x: Tensor, turns: bool, inversion: bool, rng: torch.Generator) -> Tensor:
    """Inputs after one of `fixed_turns`, drawn with equal chances; (n, *input_shape) float32."""
    known = fixed_turns(tuple(x.shape[1:]), turns, inversion)
    return turned(x, *known[int(torch.randint(len(known), (), generator=rng))])
