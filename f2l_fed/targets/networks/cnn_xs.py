"""The smallest convolutional target, for images of one object."""

from __future__ import annotations

from torch import nn

from f2l_fed.targets.networks.convolutional import image_channels, with_output_layer


def cnn_xs(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Two strided 3x3 convolutions (8 and 16 channels), average pool, linear.

    1,973 parameters for 28x28 grey images and 5 classes.
    """
    return with_output_layer(
        "cnn-xs",
        input_shape,
        classes,
        nn.Conv2d(image_channels("cnn-xs", input_shape), 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
    )
