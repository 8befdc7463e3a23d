"""The fixed steps before and after a backbone's network, by constants of its file."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from f2l_fed.errors import TargetError
from f2l_fed.targets.backbone_file import BackboneFacts, BackboneFile


class Preprocessing(nn.Module):
    """The resizing of images, and the scaling of channels or numbers, before the network.

    Args:
        facts: The backbone's description.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, facts: BackboneFacts) -> None:
        super().__init__()
        self.resize = facts.resize
        shape = (-1,) + (1,) * (len(facts.input_shape) - 1)
        ones = torch.ones(facts.input_shape[0])
        mean, std = (torch.tensor(values) for values in (facts.mean, facts.std))
        self.register_buffer("mean", (mean if facts.mean else 0 * ones).view(shape))
        self.register_buffer("std", (std if facts.std else ones).view(shape))

    def forward(self, x: Tensor) -> Tensor:
        """The network's inputs: (n, *input_shape) float32 to (n, ...)."""
        if self.resize:
            size = list(self.resize)
            x = functional.interpolate(x, size, mode="bilinear", antialias=True)
        return (x - self.mean) / self.std


class Pooling(nn.Module):
    """The averaging of the network's maps, and the centring and scaling of its features.

    Raw features of pretrained networks are far from zero and long, and the strengths of heads are
    for features of a root mean square length of 1.

    Args:
        file: The constants.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, file: BackboneFile) -> None:
        super().__init__()
        self.register_buffer("centre", file.centre)
        self.register_buffer("scale", file.scale)

    def forward(self, found: Tensor) -> Tensor:
        """Features (n, F) of the network's output, (n, F) or (n, F, H, W).

        Raises:
            TargetError: If the network returns no tensor.
        """
        if not isinstance(found, Tensor):
            raise TargetError(
                "the backbone returns no tensor",
                got=type(found).__name__,
                remedy="Wrap it in a module whose forward returns its features alone.",
            )
        pooled = found.float().mean((2, 3)) if found.dim() == 4 else found.float()
        return (pooled - self.centre) * self.scale
