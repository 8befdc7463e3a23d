"""The data of a simulation as features of a frozen backbone.

The sites read their own examples as anywhere else and find the features in their state folders,
where each is looked up by the digest of examples and backbone. So they are made once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

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

    def kept(number: int) -> Callable[[list[Tensor]], list[Tensor]]:
        state = folder / f"site-{number:03d}" / "state"
        private_folder(state)
        return lambda parts: cached_features(state, backbone, parts, told)

    def made(parts: list[Tensor]) -> list[Tensor]:
        sizes = [len(part) for part in parts]
        return list(features_of(backbone.front(), torch.cat(parts), told).split(sizes))

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
