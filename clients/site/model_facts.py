"""The description of a site's network, read without torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from f2l_fed.core.config_parsing import from_mapping
from f2l_fed.core.wording import file_fault
from f2l_fed.errors import DataError
from f2l_fed.targets.frozen_part import FrozenPart, frozen_part

WEIGHTS = "model.safetensors"
"""Name of the network's file in the state folder, whose metadata hold the facts."""

METADATA = "f2l_fed"
"""Name of the facts in them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """The description of a fine-tuned network.

    Args:
        site: Name of the site.
        time: Time at which it was made, ISO 8601.
        target: Name of the architecture.
        classes: Number of its outputs.
        labels: Meaning of the outputs; empty where the data have numbers too.
        input_shape: Shape of one input.
        lineage: Lineage of the federation.
        round: Number of the round; 0 outside of rounds.
        release: Release that generated the start; "" for none.
        chosen: Kind of the start.
        layout: Digest of the layout.
        steps: Gradient steps from the start.
        accuracy_before: Accuracy of the start on the validation examples, in [0, 1].
        accuracy: Accuracy after the steps.
        encoding: The encoding of a table's columns as features, JSON; "" for none.
        backbone: Digest of the frozen backbone whose features it takes; "" for none.
        features: Number of these.
        adapted: Numbers of its adapted part before them; 0 where that is the head alone.
        tokens: Tokens of a text, where an exported program takes these; else 0.
        tokenizer: SHA-256 of the tokenizer.json that makes them; else "".
    """

    site: str
    time: str
    target: str
    classes: int
    labels: tuple[str, ...]
    input_shape: tuple[int, ...]
    lineage: str
    round: int
    release: str
    chosen: str
    layout: str
    steps: int
    accuracy_before: float
    accuracy: float
    encoding: str = ""
    backbone: str = ""
    features: int = 0
    adapted: int = 0
    tokens: int = 0
    tokenizer: str = ""

    @property
    def frozen(self) -> FrozenPart | None:
        """The frozen part whose features the network takes; None where it takes inputs."""
        return frozen_part(self.backbone, self.features, self.adapted)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of all outputs: the labels, or numbers where there are none; all different."""
        if not self.labels:
            return tuple(map(str, range(self.classes)))
        surplus = range(len(self.labels), self.classes)
        return (*self.labels, *(f"(output {number} without a label)" for number in surplus))

    @property
    def origin(self) -> str:
        """The round and the release that the start is of, as text."""
        told = (("round", str(self.round or "")), ("release", self.release))
        return ", ".join(f"{name} {value}" for name, value in told if value)

    @property
    def text(self) -> str:
        """The facts as JSON."""
        return json.dumps(asdict(self), indent=1) + "\n"


def load_facts(folder: Path) -> ModelFacts | None:
    """Reads the description of the network in a folder; None where none has been made yet.

    Raises:
        DataError: If it is damaged.
    """
    path = folder / WEIGHTS
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="np") as file:
            values: dict[str, Any] = json.loads((file.metadata() or {})[METADATA])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise damaged(path, error) from error
    return from_mapping(ModelFacts, values, where=str(path))


def damaged(path: Path, error: Exception) -> DataError:
    """The error that a network can't be read."""
    return DataError(
        "the site's network can't be read",
        where=str(path),
        got=file_fault(error),
        remedy="Remove it; the next round makes another.",
    )
