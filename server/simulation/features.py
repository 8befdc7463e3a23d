"""The data of a simulation as features of a frozen backbone.

The sites read their own examples as anywhere else and find the features in their state folders,
where each is looked up by the digest of examples and backbone. So they are made once; an example of
several sites too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor, nn

from f2l_fed.core.private_files import private_folder
from f2l_fed.data import Partition, SiteData
from f2l_fed.errors import DataError
from f2l_fed.targets.backbone import InstalledBackbone, Progress, features_of
from f2l_fed.targets.config import BackboneConfig
from f2l_fed.targets.feature_cache import cached_features


def installed_backbone(config: BackboneConfig, divided: Partition) -> InstalledBackbone:
    """The backbone of a simulation, which must suit its data.

    Raises:
        TargetError: If none is named, or its code does not suit its file.
        DataError: If its file can't be read, or the data have another shape.
    """
    backbone = InstalledBackbone.of(config, Path())
    backbone.require_inputs(texts=bool(divided.reading.text), where="data.text")
    if backbone.facts.input_shape != divided.input_shape:
        raise DataError(
            "the data have another shape than the backbone's inputs",
            where=config.file,
            expected=str(backbone.facts.input_shape),
            got=str(divided.input_shape),
            remedy="Convert them (resize and mode under [data]), or prepare the backbone for them.",
        )
    if divided.reading.image_scale:
        raise DataError(
            "the backbone scales the channels of images itself",
            where="data.image_scale",
            expected='""',
            got=divided.reading.image_scale,
        )
    backbone.front()
    return backbone


def on_features(
    divided: Partition, backbone: InstalledBackbone, folder: Path, progress: Progress | None
) -> Partition:
    """The data with features as inputs; those of training sites are left in their folders.

    Args:
        divided: The data.
        backbone: Makes the features.
        folder: Folder of the sites' folders.
        progress: Told of all examples together.
    """
    changed = [change.site for change in divided.changes]
    held_out = [site for part in divided.held_out.values() for site in part or ()]
    every = [*divided.sites, *changed, *held_out]
    total = sum(len(site.y_train) + len(site.y_test) for site in every)
    done = 0

    def told(now: int, _: int) -> None:
        if progress is not None:
            progress(done + now, total)

    def converted(site: SiteData, make: Callable[[list[Tensor]], list[Tensor]]) -> SiteData:
        nonlocal done
        train, test = make([torch.from_numpy(site.x_train), torch.from_numpy(site.x_test)])
        done += len(train) + len(test)
        return replace(site, x_train=train.numpy(), x_test=test.numpy())

    make = _Remembering(backbone.front())

    def kept(number: int) -> Callable[[list[Tensor]], list[Tensor]]:
        state = folder / f"site-{number:03d}" / "state"
        private_folder(state)
        return lambda parts: cached_features(state, backbone, parts, told, make)

    def made(parts: list[Tensor]) -> list[Tensor]:
        sizes = [len(part) for part in parts]
        return list(make(torch.cat(parts), told).split(sizes))

    sites = tuple(converted(site, kept(number)) for number, site in enumerate(divided.sites))
    width = sites[0].x_train.shape[1]
    return replace(
        divided,
        sites=sites,
        held_out={
            kind: None if part is None else tuple(converted(site, made) for site in part)
            for kind, part in divided.held_out.items()
        },
        changes=tuple(
            replace(change, site=converted(change.site, made)) for change in divided.changes
        ),
        input_shape=(width,),
    )


class _Remembering:
    """Makes features, of equal examples only once.

    Args:
        network: The backbone's network.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._known: dict[bytes, Tensor] = {}

    def __call__(self, x: Tensor, progress: Progress | None) -> Tensor:
        """Features of examples: (n, *input_shape) float32 to (n, F)."""
        keys = [blake2b(row.numpy().data, digest_size=16).digest() for row in x.contiguous()]
        new = {key: row for row, key in enumerate(keys) if key not in self._known}
        if new:
            made = features_of(self._network, x[list(new.values())])
            self._known.update(zip(new, made, strict=True))
        if progress is not None:
            progress(len(x), len(x))
        return torch.stack([self._known[key] for key in keys])
