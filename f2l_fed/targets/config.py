"""Settings of the target network."""

from __future__ import annotations

import re
from dataclasses import dataclass

from f2l_fed.core.validation import choice, require
from f2l_fed.targets.frozen_part import FrozenPart, frozen_part

HEAD, ALL, LORA = "head", "all", "lora"

PARTS = ("last-block", "norm-bias", LORA)
"""The parts of a pretrained network that can be adapted besides its head: whole layers, their norms
and biases, or low-rank changes."""

ADAPTED = (HEAD, ALL, *PARTS)
"""The parts of a network that can be generated or adapted."""

ADAPTER = "adapter"
"""The name of what sits on a pretrained, frozen backbone: a head, and maybe an adapted part."""

FEWEST = 2
"""Smallest number of classes of a site."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetConfig:
    """The network that is generated.

    Args:
        name: A known target or ``module:factory``; "auto", the default of new federations, is
            replaced by a built-in one that suits the inputs.
        input_shape: Shape of one input, e.g. [1, 28, 28]; a simulation takes the data's.
        classes: Number of outputs; a simulation takes the scenario's. Where heads are generated,
            the most classes that a site may have, whose network has an output for each of its own.
        adapt: The part that is generated for a site: "head", the output layer on a body that all
            sites train together, or "all", the whole network; with shared labels always "all".
    """

    name: str = "cnn-xs"
    input_shape: tuple[int, ...] = (1, 28, 28)
    classes: int = 5
    adapt: str = "all"
    backbone: str = ""
    features: int = 0
    adapted: int = 0

    def __post_init__(self) -> None:
        require(
            bool(self.input_shape) and min(self.input_shape) > 0, self, "input_shape", "sizes > 0"
        )
        require(self.classes >= 2, self, "classes", ">= 2")
        choice(self, "adapt", ADAPTED)
        digest = not self.backbone or re.fullmatch(r"[0-9a-f]{64}", self.backbone) is not None
        require(digest, self, "backbone", "64 hexadecimal digits")
        adapts = self.name == ADAPTER
        require(
            adapts or not self.backbone, self, "name", f"{ADAPTER!r}, where there is a backbone"
        )
        require(not adapts or self.adapt != ALL, self, "adapt", "another part on a backbone")
        require(adapts or self.adapt not in PARTS, self, "adapt", "'head' or 'all'")
        require(
            bool(self.backbone) == (self.features > 0), self, "features", "those of the backbone"
        )
        known = bool(self.backbone) and self.adapt in PARTS
        require((self.adapted > 0) == known, self, "adapted", "those of the backbone's file")

    @property
    def frozen(self) -> FrozenPart | None:
        """The frozen part of an adapter; None without one."""
        return frozen_part(self.backbone, self.features, self.adapted)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneConfig:
    """A frozen backbone that this machine has.

    Args:
        file: The file that f2l-admin target prepare has written, relative to the configuration's
            folder; "" for none.
        network: The code that takes it: ``module:factory``, whose ``factory()`` returns the
            network without a head, ``timm:NAME``, or ``hf:FOLDER`` with a transformer of texts,
            relative to the configuration's folder; "" until it is named.
    """

    file: str = ""
    network: str = ""

    def __post_init__(self) -> None:
        require("\0" not in self.file, self, "file", "a path without a zero byte")
        require(bool(self.file) or not self.network, self, "file", "a file for the network")
