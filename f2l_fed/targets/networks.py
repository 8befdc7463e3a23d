"""The built-in target networks; small, without buffers, one linear output layer each."""

from __future__ import annotations

from math import prod

from torch import nn

from f2l_fed.errors import TargetError


def mlp(input_shape: tuple[int, ...], classes: int, hidden: int = 32) -> nn.Module:
    """One hidden ReLU layer; for vectors and for small images."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(prod(input_shape), hidden), nn.ReLU(), nn.Linear(hidden, classes)
    )


def cnn_xs(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Two strided 3x3 convolutions (8 and 16 channels), average pool, linear.

    1,973 parameters for 28x28 grey images and 5 classes.
    """
    return _sequential(
        "cnn-xs",
        input_shape,
        classes,
        nn.Conv2d(image_channels("cnn-xs", input_shape), 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
    )


def cnn_s(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Three convolutions (8 of 5x5, 6 of 5x5, 4 of 2x2) and two linear layers.

    2,464 parameters for 28x28 grey images and 10 classes, the network of the model zoos of
    Schürholt et al. (arXiv 2209.14764).
    """
    return _sequential(
        "cnn-s",
        input_shape,
        classes,
        nn.Conv2d(image_channels("cnn-s", input_shape), 8, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(8, 6, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(6, 4, 2),
        nn.ReLU(),
        hidden=20,
    )


def cnn_m(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Three convolutions (16, 32, 16 channels) with group normalisation, and a linear layer.

    About 11,000 parameters for 28x28 grey images.
    """
    return _sequential(
        "cnn-m",
        input_shape,
        classes,
        nn.Conv2d(image_channels("cnn-m", input_shape), 16, 3, stride=2, padding=1),
        nn.GroupNorm(4, 16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.GroupNorm(4, 32),
        nn.ReLU(),
        nn.Conv2d(32, 16, 3, padding=1),
        nn.GroupNorm(4, 16),
        nn.ReLU(),
        nn.AvgPool2d(2),
    )


def image_channels(name: str, input_shape: tuple[int, ...]) -> int:
    """The number of channels of images; a TargetError for inputs that are none."""
    if len(input_shape) != 3:
        raise TargetError(
            "this target works on images",
            where=f"[target] name = {name!r}",
            expected="inputs of shape (channels, height, width)",
            got=f"shape {input_shape}",
            remedy="Use the target 'mlp' for vectors.",
        )
    return input_shape[0]


def _sequential(
    name: str, input_shape: tuple[int, ...], classes: int, *features: nn.Module, hidden: int = 0
) -> nn.Module:
    from torch import zeros

    body = nn.Sequential(*features, nn.Flatten())
    try:
        width = body(zeros(1, *input_shape)).shape[1]
    except RuntimeError as error:
        raise TargetError(
            "the images are too small for this target",
            where=f"[target] name = {name!r}",
            got=f"images of shape {input_shape}",
            remedy="Use the target 'mlp'.",
        ) from error
    if hidden:
        return nn.Sequential(
            *features, nn.Flatten(), nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, classes)
        )
    return nn.Sequential(*features, nn.Flatten(), nn.Linear(width, classes))
