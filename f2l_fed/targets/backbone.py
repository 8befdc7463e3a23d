"""A pretrained, frozen backbone of this machine: inputs become features, on which a head sits.

With an adapted part the backbone is cut before it. What comes before is the frozen part, and the
rest belongs to the network that is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from f2l_fed.core.placement import CPU, moved, placed
from f2l_fed.errors import DataError, TargetError
from f2l_fed.targets.adaptation import adapted
from f2l_fed.targets.adapted_tail import AdaptedTail, CutNetwork, CutTail, FrozenFront, cut_network
from f2l_fed.targets.backbone_file import BackboneFacts, BackboneFile
from f2l_fed.targets.backbone_network import backbone_network, network_in
from f2l_fed.targets.backbone_steps import Pooling, Preprocessing
from f2l_fed.targets.config import HEAD, BackboneConfig
from f2l_fed.targets.frozen_part import FrozenPart
from f2l_fed.targets.inspection import called
from f2l_fed.targets.transformer import tokens_of

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

    Raises:
        TargetError: If the file takes texts and the network none, or otherwise, or another
            tokenizer.
    """

    def __init__(self, network: nn.Module, file: BackboneFile) -> None:
        super().__init__()
        self.preprocessing = tokens_of(network, file.facts) or Preprocessing(file.facts)
        self.network = network
        self.pooling = Pooling(file)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """The centred and scaled features: (n, *input_shape) float32 to (n, F)."""
        found: Tensor = self.pooling(self.network(self.preprocessing(x)))
        return found

    def after_preprocessing(self) -> nn.Module:
        """The same from the network's own inputs on, such as tokens of texts."""
        return nn.Sequential(self.network, self.pooling)


@dataclass(frozen=True, slots=True)
class InstalledPart(FrozenPart):
    """A frozen part of this machine, whose adapted part can be computed here.

    Args:
        config: The backbone's file, as an absolute path, and its network.
    """

    config: BackboneConfig = BackboneConfig()

    def tail(self) -> AdaptedTail:
        """The adapted part without any change, from the values at the cut to the features.

        Raises:
            TargetError: As `InstalledBackbone.front`.
        """
        built = _require_same(self.config, self)
        assert built.tail is not None
        return AdaptedTail(built.tail, built.pooling)


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
        network = network_in(folder, config.network)
        config = replace(config, file=str(path), network=network)
        return cls(config=config, facts=facts, part=part)

    def front(self) -> Backbone | FrozenFront:
        """The part whose results never change: (n, *input_shape) float32 to (n, C).

        Its results are the features, or with an adapted part the values at the cut before it.

        Raises:
            TargetError: If the network's code does not suit the file, or another file is there now.
        """
        return _require_same(self.config, self.part).front

    @property
    def installed(self) -> FrozenPart:
        """The frozen part, with what is needed to compute its adapted part here."""
        part = self.part
        if not part.adapted:
            return part
        return InstalledPart(part.digest, part.features, part.adapted, self.config)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of a federation on it, as `TargetConfig` has them."""
        part = self.part
        return {
            "adapt": self.facts.adapt,
            "backbone": part.digest,
            "features": part.features,
            "adapted": part.adapted,
        }

    def require_inputs(self, *, texts: bool, where: str) -> None:
        """Raises DataError unless the backbone takes texts where there are such, or none.

        Args:
            texts: Whether the inputs are texts.
            where: The key of the settings that names their column.
        """
        if texts and not self.facts.tokens:
            raise DataError(
                "the backbone takes no texts",
                where=self.config.file,
                remedy=f"Leave out {where}, or prepare one that does (hf:FOLDER).",
            )
        if self.facts.tokens and not texts:
            raise DataError(
                "the backbone takes texts, and no column of texts is named",
                where=where,
                expected="the name of a column of a table",
            )

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
def features_of(
    backbone: nn.Module, x: Tensor, progress: Progress | None = None, device: torch.device = CPU
) -> Tensor:
    """The features of many inputs, a batch at a time.

    Args:
        backbone: The backbone.
        x: (n, *input_shape) float32.
        progress: Told after each batch.
        device: What computes them.

    Returns:
        (n, F) float32, on the CPU.
    """
    backbone, found = placed(backbone, device), list[Tensor]()
    for start in range(0, len(x), _BATCH):
        found.append(backbone(moved(x[start : start + _BATCH], device)).cpu())
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Built:
    """A built backbone: its frozen part, and the network's own steps after the cut, if any."""

    part: FrozenPart
    front: Backbone | FrozenFront
    pooling: nn.Module
    tail: CutTail | None


def _require_same(config: BackboneConfig, part: FrozenPart) -> _Built:
    """The built backbone; raises TargetError if its file is another by now."""
    path = Path(config.file)
    built = _built(path, config.network, *_version(path))
    if built.part.digest != part.digest:
        raise TargetError(
            "the backbone's file has changed in the meantime",
            where=config.file,
            expected=part.digest,
            got=built.part.digest,
            remedy="The next task or command takes the new one.",
        )
    return built


@lru_cache(maxsize=2)
def _built(path: Path, network: str, _time: int, _size: int) -> _Built:
    file = BackboneFile.read(path)
    module = backbone_network(network)
    fill(module, file.network, network, str(path))
    backbone = Backbone(module, file)
    where = f"backbone {network!r}"
    found = called(backbone, file.inputs, where=where)
    if found.shape != file.expected.shape or not torch.allclose(
        found, file.expected, rtol=_TOLERANCE, atol=_TOLERANCE
    ):
        raise TargetError(
            "the network makes other features than its file was prepared with",
            where="[backbone] network",
            got=repr(network),
            remedy="Install the version of its code that the administrator used.",
        )
    if file.facts.adapt == HEAD:
        return _Built(part=file.part, front=backbone, pooling=backbone.pooling, tail=None)
    cut = cut_backbone(backbone, file.facts, file.inputs, where=where)
    if cut.adapted != file.facts.adapted:
        raise TargetError(
            "the network has other layers to adapt than its file was prepared with",
            where="[backbone] network",
            got=repr(network),
            remedy="Install the version of its code that the administrator used.",
        )
    front = FrozenFront(backbone.preprocessing, cut.front).eval()
    return _Built(part=file.part, front=front, pooling=backbone.pooling, tail=cut.tail)


def cut_backbone(backbone: Backbone, facts: BackboneFacts, x: Tensor, *, where: str) -> CutNetwork:
    """A backbone's network, adapted as its description says, and cut there.

    Args:
        backbone: The backbone, whose network is changed in place.
        facts: The description.
        x: (2, *input_shape) float32 inputs.

    Raises:
        TargetError: If there is no such part, or it can't be cut off.
    """
    adapted(backbone.network, facts.adapt, layers=facts.layers, rank=facts.rank)
    with torch.no_grad():
        return cut_network(backbone.network, backbone.preprocessing(x), where=where)
