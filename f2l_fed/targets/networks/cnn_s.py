"""A small convolutional target, the one of published model zoos."""

from __future__ import annotations

from torch import nn

from f2l_fed.targets.networks.convolutional import image_channels, with_output_layer


def cnn_s(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Three convolutions (8 of 5x5, 6 of 5x5, 4 of 2x2) and two linear layers.

    2,464 parameters for 28x28 grey images and 10 classes, the network of the model zoos of
    Schürholt et al. (arXiv 2209.14764).
    """
    return with_output_layer(
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
