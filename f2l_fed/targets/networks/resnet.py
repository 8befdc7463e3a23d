"""Residual networks in the form for small images: three stages of 16, 32 and 64 channels.

The shortcut into a new stage is a 1x1 convolution. Padding with zero channels instead, as the
original does, would need no parameters, but it would tie the order of a stage's channels to that
of the stage before; so every stage has an order of its own.

Reference:
    He et al.: Deep residual learning for image recognition. arXiv 1512.03385, section 4.2.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from f2l_fed.targets.networks.convolutional import image_channels

_WIDTHS = (16, 32, 64)

Norm = Callable[[int], nn.Module]


def four_groups(channels: int) -> nn.Module:
    """Group normalisation in four groups of channels."""
    return nn.GroupNorm(4, channels)


class Block(nn.Module):
    """Two 3x3 convolutions, each normalised, added to what came in.

    Args:
        incoming: Channels of the input.
        width: Channels of the output.
        stride: Of the first convolution; 2 halves height and width.
        norm: Builds the normalisation of a number of channels.
    """

    def __init__(self, incoming: int, width: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(incoming, width, 3, stride=stride, padding=1, bias=False),
            norm(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            norm(width),
        )
        self.shortcut = (
            nn.Identity()
            if incoming == width and stride == 1
            else nn.Sequential(
                nn.Conv2d(incoming, width, 1, stride=stride, bias=False), norm(width)
            )
        )
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(n, incoming, h, w) to (n, width, h / stride, w / stride), float32."""
        result: Tensor = self.activation(self.body(x) + self.shortcut(x))
        return result


def resnet(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    name: str = "resnet",
    blocks: int = 1,
    norm: Norm = four_groups,
) -> nn.Module:
    """A residual network of ``6 * blocks + 2`` layers.

    Args:
        input_shape: (channels, height, width).
        classes: Outputs of the linear layer after the average over all places.
        name: As in the configuration, for error messages.
        blocks: Blocks in each of the three stages.
        norm: Builds the normalisation of a number of channels.

    Raises:
        TargetError: If the inputs aren't images.
    """
    width = _WIDTHS[0]
    layers: list[nn.Module] = [
        nn.Conv2d(image_channels(name, input_shape), width, 3, padding=1, bias=False),
        norm(width),
        nn.ReLU(),
    ]
    for stage, following in enumerate(_WIDTHS):
        for index in range(blocks):
            layers.append(Block(width, following, 2 if stage and not index else 1, norm))
            width = following
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def resnet8(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """One block a stage, about 78,000 parameters."""
    return resnet(input_shape, classes, name="resnet8", blocks=1)


def resnet20(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Three blocks a stage, about 272,000 parameters."""
    return resnet(input_shape, classes, name="resnet20", blocks=3)
