"""The registry of built-in targets; another one takes a file with a factory and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from f2l_fed.core.lazy_registry import LazyRegistry

if TYPE_CHECKING:
    from f2l_fed.targets.target import Factory

TARGETS: Mapping[str, Factory] = LazyRegistry(
    {
        "mlp": "f2l_fed.targets.networks.mlp:mlp",
        "cnn-xs": "f2l_fed.targets.networks.cnn_xs:cnn_xs",
        "cnn-s": "f2l_fed.targets.networks.cnn_s:cnn_s",
        "cnn-m": "f2l_fed.targets.networks.cnn_m:cnn_m",
        "resnet8": "f2l_fed.targets.networks.resnet:resnet8",
        "resnet20": "f2l_fed.targets.networks.resnet:resnet20",
    }
)
