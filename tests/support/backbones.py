"""A pretrained backbone of two thousand weights for 8x8 digits, and its prepared file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from f2l_fed.targets.adaptation import adapted
from f2l_fed.targets.backbone import InstalledBackbone
from f2l_fed.targets.backbone_file import BackboneFacts, BackboneFile
from f2l_fed.targets.backbone_preparation import prepare_backbone
from f2l_fed.targets.config import BackboneConfig

FEATURES = 12
NETWORK = f"{__name__}:small_backbone"
SHAPE = (1, 8, 8)


class SmallBackbone(nn.Module):
    """Two convolutions with batch normalisation, a mask, and features as maps."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, FEATURES, 3, stride=2, padding=1)
        self.register_buffer("mask", torch.ones(16, 1, 1, dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.norm(self.first(x)).relu() * self.mask).relu()


def small_backbone() -> nn.Module:
    """The network with whatever weights; its file's replace them."""
    return SmallBackbone()


def other_code() -> nn.Module:
    """The same tensors, but other steps."""

    class Other(SmallBackbone):
        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.norm(self.first(x)).tanh() * self.mask).relu()

    return Other()


ADAPTED: dict[str, dict[str, object]] = {
    "lora": {"adapt": "lora", "layers": ("second",), "rank": 2},
    "norm-bias": {"adapt": "norm-bias", "layers": ("",)},
    "last-block": {"adapt": "last-block", "layers": ("second",)},
}
"""Facts by which each part of the network but its head is adapted."""


def backbone_file(**more: object) -> BackboneFile:
    facts = BackboneFacts(input_shape=SHAPE, features=1, mean=(0.3,), std=(0.4,), **more)
    return prepare_backbone(NETWORK, None, facts)


def installed(
    folder: Path, *, name: str = "backbone.safetensors", **more: object
) -> BackboneConfig:
    """The configuration of a backbone whose file is written to a folder."""
    backbone_file(**more).write(folder / name)
    return BackboneConfig(file=name, network=NETWORK)


def opened(folder: Path) -> InstalledBackbone:
    """An installed backbone in a folder."""
    return InstalledBackbone.of(installed(folder), folder)


def adapted_network(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """A network of one's own: the backbone with low-rank changes in its last layer, and a head."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        backbone = SmallBackbone()
    body = adapted(backbone, "lora", layers=["second"], rank=2)
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(FEATURES, classes))
