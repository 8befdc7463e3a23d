"""Common parts of the convolutional targets: the check of their inputs and the output layer."""

from __future__ import annotations

import torch
from torch import nn

from f2l_fed.errors import TargetError


def image_channels(name: str, input_shape: tuple[int, ...]) -> int:
    """The number of channels of images.

    Args:
        name: Of the target, for the error.
        input_shape: (channels, height, width).

    Raises:
        TargetError: If the inputs are not images.
    """
    if len(input_shape) != 3:
        raise TargetError(
            "this target works on images",
            where=f"[target] name = {name!r}",
            expected="inputs of shape (channels, height, width)",
            got=f"shape {input_shape}",
            remedy="Use the target 'mlp' for vectors.",
        )
    return input_shape[0]


def with_output_layer(
    name: str, input_shape: tuple[int, ...], classes: int, *features: nn.Module, hidden: int = 0
) -> nn.Module:
    """Feature layers, flattened, and a linear output layer of the size that fits.

    Args:
        name: Of the target, for the error.
        input_shape: (channels, height, width).
        classes: Outputs.
        features: Layers from (n, *input_shape) to features of any shape.
        hidden: Units of a hidden ReLU layer before the output; 0 for none.

    Raises:
        TargetError: If the images are too small for the layers.
    """
    flattened = nn.Sequential(*features, nn.Flatten())
    try:
        width = flattened(torch.zeros(1, *input_shape)).shape[1]
    except RuntimeError as error:
        raise TargetError(
            "the images are too small for this target",
            where=f"[target] name = {name!r}",
            got=f"images of shape {input_shape}",
            remedy="Use the target 'mlp'.",
        ) from error
    if hidden:
        return nn.Sequential(
            *flattened, nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, classes)
        )
    return nn.Sequential(*flattened, nn.Linear(width, classes))
