"""Common parts of the convolutional targets: the check of their inputs and the output layer."""

from __future__ import annotations

from collections.abc import Sequence

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
    width = _width(input_shape, features)
    if not width:
        raise TargetError(
            "the images are too small for this target",
            where=f"[target] name = {name!r}",
            got=f"images of shape {input_shape}",
            remedy="Use the target 'mlp'.",
        )
    flattened = nn.Sequential(*features, nn.Flatten())
    if hidden:
        return nn.Sequential(
            *flattened, nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, classes)
        )
    return nn.Sequential(*flattened, nn.Linear(width, classes))


def _width(input_shape: tuple[int, ...], layers: Sequence[nn.Module]) -> int:
    """The number of features that layers make of an image; 0 if it is too small for them.

    By arithmetic: on torch's "meta" device, where networks are counted before they are built, a
    first pass through a network imports for a second.
    """
    channels, *sides = input_shape
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            size, step, pad = map(_both, (layer.kernel_size, layer.stride, layer.padding))
            sides = [
                max((side + 2 * pad[axis] - size[axis]) // step[axis] + 1, 0)
                for axis, side in enumerate(sides)
            ]
        if isinstance(layer, nn.Conv2d):
            channels = layer.out_channels
    return channels * sides[0] * sides[1]


def _both(value: object) -> tuple[int, int]:
    """A layer's setting for both axes, which may be written as one number."""
    first, second = value if isinstance(value, tuple) else (value, value)
    return int(first), int(second)
