"""A convolutional target of medium size with group normalisation."""

from __future__ import annotations

from torch import nn

from f2l_fed.targets.networks.convolutional import image_channels, with_output_layer


def cnn_m(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Three convolutions (16, 32, 16 channels) with group normalisation, and a linear layer.

    About 11,000 parameters for 28x28 grey images.
    """
    return with_output_layer(
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
