"""The network on a frozen backbone: a head, and before it the adapted part where there is one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from f2l_fed.targets.backbone import InstalledPart
from f2l_fed.targets.frozen_part import FrozenPart


class NotInstalled(nn.Module):
    """The place of an adapted part on a machine that has no backbone, such as the server.

    It has the parameter, whose values are averaged and kept there. What the part makes of inputs
    is not known; features go through as they are.

    Args:
        size: A, the numbers that are adapted.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.change = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        """The features (n, F) as they are."""
        return x + 0 * self.change.sum()


def adapter(
    frozen: FrozenPart, classes: int
) -> tuple[tuple[int, ...], Callable[[], nn.Sequential | nn.Linear]]:
    """The shape of one input of the network on a frozen part, and its factory.

    Args:
        frozen: The frozen part; an `InstalledPart` where an adapted part is to be computed.
        classes: Number of outputs.

    Raises:
        TargetError: If the installed backbone is another.
    """
    features = frozen.features
    head = partial(nn.Linear, features, classes)
    if not frozen.adapted:
        return (features,), head
    if isinstance(frozen, InstalledPart):
        inputs = frozen.tail().inputs
        return (inputs,), lambda: nn.Sequential(frozen.tail(), head())
    return (features,), lambda: nn.Sequential(NotInstalled(frozen.adapted), head())
