"""A pretrained, frozen backbone: inputs become features, on which the adapted part sits.

The features are pooled, centred and scaled to a root mean square length of 1 by constants that
belong to the frozen part: raw features of pretrained networks are far from zero and long, and the
strengths of heads are for features of this size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from f2l_fed.errors import TargetError
from f2l_fed.targets.backbone_file import BackboneFacts, BackboneFile
from f2l_fed.targets.backbone_network import backbone_network
from f2l_fed.targets.config import BackboneConfig
from f2l_fed.targets.frozen_part import FrozenPart
from f2l_fed.targets.inspection import called

Progress = Callable[[int, int], None]
"""Called with the number of inputs that are done, and that of all."""

_BATCH = 64
_TOLERANCE = 1e-3
"""Difference of features that other processors and versions make, for features of length 1."""


class Backbone(nn.Module):
    """A frozen network between its fixed preprocessing and the centring of its features.

    Args:
        network: The network, without a head.
        file: Its constants.
    """

    mean: Tensor
    std: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, file: BackboneFile) -> None:
        super().__init__()
        facts = file.facts
        self.network = network
        self.resize = facts.resize
        shape = (-1,) + (1,) * (len(facts.input_shape) - 1)
        ones = torch.ones(facts.input_shape[0])
        mean, std = (torch.tensor(values) for values in (facts.mean, facts.std))
        self.register_buffer("mean", (mean if facts.mean else 0 * ones).view(shape))
        self.register_buffer("std", (std if facts.std else ones).view(shape))
        self.register_buffer("centre", file.centre)
        self.register_buffer("scale", file.scale)
        self.eval().requires_grad_(False)

    def pooled(self, x: Tensor) -> Tensor:
        """The network's features: (n, *input_shape) float32 to (n, F); maps are averaged."""
        if self.resize:
            size = list(self.resize)
            x = functional.interpolate(x, size, mode="bilinear", antialias=True)
        found: Tensor = self.network((x - self.mean) / self.std)
        if not isinstance(found, Tensor):
            raise TargetError(
                "the backbone returns no tensor",
                got=type(found).__name__,
                remedy="Wrap it in a module whose forward returns its features alone.",
            )
        return found.float().mean((2, 3)) if found.dim() == 4 else found.float()

    def forward(self, x: Tensor) -> Tensor:
        """The centred and scaled features: (n, *input_shape) float32 to (n, F)."""
        return (self.pooled(x) - self.centre) * self.scale


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledBackbone:
    """A backbone of this machine; the network is only built when it is needed.

    Args:
        config: The file, as an absolute path, and the network that takes it.
        facts: Its description.
        part: Its digest and number of features.
    """

    config: BackboneConfig
    facts: BackboneFacts
    part: FrozenPart

    @classmethod
    def of(cls, config: BackboneConfig, folder: Path) -> InstalledBackbone:
        """The backbone of a configuration in a folder.

        Raises:
            TargetError: If none is named.
            DataError: If the file can't be read.
        """
        if not config.file:
            raise TargetError(
                "no backbone is named, and the federation adapts one",
                where="[backbone] file",
                remedy="Install the file of the federation's administrator and name it there.",
                code="other-backbone",
            )
        path = (folder / config.file).absolute()
        facts, part = _described(path, *_version(path))
        return cls(config=replace(config, file=str(path)), facts=facts, part=part)

    def module(self) -> Backbone:
        """The backbone, ready to make features.

        Raises:
            TargetError: If the network's code does not suit the file, or another file is there now.
        """
        path = Path(self.config.file)
        backbone, part = _built(path, self.config.network, *_version(path))
        if part != self.part:
            raise TargetError(
                "the backbone's file has changed in the meantime",
                where=self.config.file,
                expected=self.part.digest,
                got=part.digest,
                remedy="The next task or command takes the new one.",
            )
        return backbone

    def require(self, asked: FrozenPart | None) -> None:
        """Raises TargetError, with both digests, if another backbone is asked for."""
        if self.part != asked:
            raise TargetError(
                "the federation adapts another backbone",
                where=self.config.file,
                expected="none" if asked is None else asked.digest,
                got=self.part.digest,
                remedy="Install the file of the federation's administrator.",
                code="other-backbone",
            )


@torch.no_grad()
def features_of(backbone: nn.Module, x: Tensor, progress: Progress | None = None) -> Tensor:
    """The features of many inputs, a batch at a time.

    Args:
        backbone: The backbone.
        x: (n, *input_shape) float32.
        progress: Told after each batch.

    Returns:
        (n, F) float32.
    """
    found = []
    for start in range(0, len(x), _BATCH):
        found.append(backbone(x[start : start + _BATCH]))
        if progress is not None:
            progress(min(start + _BATCH, len(x)), len(x))
    return torch.cat(found)


def fill(module: nn.Module, tensors: Mapping[str, Tensor], network: str, where: str) -> None:
    """Fills a network with tensors; those that it has no place for, such as a head's, are left out.

    Raises:
        TargetError: If some are missing, or have other shapes.
    """
    try:
        missing = module.load_state_dict(dict(tensors), strict=False).missing_keys
    except RuntimeError as error:
        raise TargetError(
            "the weights have other shapes than the network's",
            where=where,
            got=" ".join(str(error).split())[:200],
        ) from error
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing:
        raise TargetError(
            "weights of the network are missing",
            where=where,
            expected=f"all tensors of {network!r}",
            got=f"{len(missing)} missing, such as {missing[0]!r}",
        )


def _version(path: Path) -> tuple[int, int]:
    """Time and size of a file, by which a changed one is noticed; zeros where there is none."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=4)
def _described(path: Path, _time: int, _size: int) -> tuple[BackboneFacts, FrozenPart]:
    file = BackboneFile.read(path)
    return file.facts, file.part


@lru_cache(maxsize=2)
def _built(path: Path, network: str, _time: int, _size: int) -> tuple[Backbone, FrozenPart]:
    file = BackboneFile.read(path)
    module = backbone_network(network)
    fill(module, file.network, network, str(path))
    backbone = Backbone(module, file)
    found = called(backbone, file.inputs, where=f"backbone {network!r}")
    if found.shape != file.expected.shape or not torch.allclose(
        found, file.expected, rtol=_TOLERANCE, atol=_TOLERANCE
    ):
        raise TargetError(
            "the network makes other features than its file was prepared with",
            where="[backbone] network",
            got=repr(network),
            remedy="Install the version of its code that the administrator used.",
        )
    return backbone, file.part
