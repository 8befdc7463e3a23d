"""The file of a frozen backbone: its tensors, and what is done to an input before and after them.

A safetensors file whose metadata hold the facts as JSON. It names no code: the network that takes
the tensors is named beside it, by the operator of each machine. Two examples with their features
lie in it, so that other code under the same name is noticed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite, prod
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from f2l_fed.core.config_parsing import from_mapping
from f2l_fed.core.durable_files import write_atomically
from f2l_fed.core.validation import choice, positive, require
from f2l_fed.core.wording import file_fault
from f2l_fed.errors import DataError, F2LError
from f2l_fed.targets.config import HEAD, LORA, PARTS
from f2l_fed.targets.frozen import tensors_digest
from f2l_fed.targets.frozen_part import FrozenPart

_FACTS = "f2l_backbone"
_NETWORK = "network."
_CUT = "features"
"""The cut: all of the network is frozen, and what is adapted sits on its pooled features."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneFacts:
    """The description of a backbone: what it does to an input besides the network's own steps.

    Args:
        input_shape: Shape of one input as the data have it, e.g. [3, 64, 64].
        features: F, the numbers that it makes of an input.
        resize: Height and width to which images are brought; empty leaves them.
        mean: Subtracted from each channel, or each number of a vector; empty for none.
        std: What each is divided by after that; empty for none.
        cut: Where the frozen part ends.
        adapt: The part that is adapted; "head" where all of the network is frozen.
        layers: Names of the submodules in which it lies.
        rank: Of low-rank changes; 0 without.
        tokens: T, the tokens that a text becomes; 0 where inputs are no texts.
        tokenizer: SHA-256 of the tokenizer, hexadecimal; "" where inputs are no texts.
        adapted: Names and shapes of the adapted tensors, such as "conv.weight 8x3x3x3".
    """

    input_shape: tuple[int, ...]
    features: int
    resize: tuple[int, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    cut: str = _CUT
    adapt: str = HEAD
    layers: tuple[str, ...] = ()
    rank: int = 0
    adapted: tuple[str, ...] = ()
    tokens: int = 0
    tokenizer: str = ""

    def __post_init__(self) -> None:
        shape, image = self.input_shape, len(self.input_shape) == 3
        require(bool(shape) and min(shape) > 0, self, "input_shape", "sizes > 0")
        positive(self, "features")
        sides = not self.resize or (image and len(self.resize) == 2 and min(self.resize) > 0)
        require(sides, self, "resize", "height and width, for images alone")
        for name in ("mean", "std"):
            values = getattr(self, name)
            fits = len(values) in (0, shape[0]) and all(map(isfinite, values))
            require(fits, self, name, f"{shape[0]} finite numbers, or none")
        require(all(value > 0 for value in self.std), self, "std", "> 0")
        require(self.cut == _CUT, self, "cut", repr(_CUT))
        choice(self, "adapt", (HEAD, *PARTS))
        require(bool(self.layers) == (self.adapt != HEAD), self, "layers", "those of the part")
        require((self.rank > 0) == (self.adapt == LORA), self, "rank", "> 0 for lora, else 0")
        known = all(re.fullmatch(r"\S+ \d+(x\d+)*", one) for one in self.adapted)
        require(known, self, "adapted", "names and shapes")
        digest = re.fullmatch(r"[0-9a-f]{64}", self.tokenizer) is not None
        require(digest == (self.tokens > 0), self, "tokenizer", "a digest where there are tokens")
        bare = len(shape) == 1 and not self.mean and not self.std
        require(bare or not self.tokens, self, "tokens", "0 where inputs are no texts")

    @property
    def text(self) -> str:
        """The facts as canonical JSON; those about adapted part or texts only where there are."""
        facts = asdict(self)
        if self.adapt == HEAD:
            for name in ("adapt", "layers", "rank", "adapted"):
                del facts[name]
        if not self.tokens:
            del facts["tokens"], facts["tokenizer"]
        return json.dumps(facts, sort_keys=True)

    @property
    def change_size(self) -> int:
        """A, the numbers that are adapted before the head."""
        shapes = (one.split()[1].split("x") for one in self.adapted)
        return sum(prod(map(int, shape)) for shape in shapes)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneFile:
    """The content of a backbone's file.

    Args:
        facts: The description.
        network: The network's tensors, by name.
        centre: (F,) float32, subtracted from the pooled features.
        scale: () float32, the factor after that.
        inputs: (2, *input_shape) float32, two examples.
        expected: (2, F) float32, their features.
    """

    facts: BackboneFacts
    network: Mapping[str, Tensor]
    centre: Tensor
    scale: Tensor
    inputs: Tensor
    expected: Tensor

    @property
    def part(self) -> FrozenPart:
        """The frozen part, by its digest and its number of features."""
        tensors = {
            f"{_NETWORK}{name}": tensor
            for name, tensor in self.network.items()
            if not name.endswith("num_batches_tracked")
        }
        own = {"centre": self.centre, "scale": self.scale}
        digest = tensors_digest(tensors | own, self.facts.text)
        return FrozenPart(digest, self.facts.features, self.facts.change_size)

    def write(self, path: Path) -> None:
        """Writes the file, replacing what is there."""
        tensors = {f"{_NETWORK}{name}": tensor for name, tensor in self.network.items()}
        own = {name: getattr(self, name) for name in ("centre", "scale", "inputs", "expected")}
        # Tied tensors share memory, which the format has no words for.
        whole = {
            name: value.detach().clone().contiguous() for name, value in (tensors | own).items()
        }
        write_atomically(path, save(whole, {_FACTS: self.facts.text}))

    @classmethod
    def read(cls, path: Path) -> BackboneFile:
        """Reads a file.

        Raises:
            DataError: If it is missing, damaged or no prepared backbone.
        """
        try:
            with safe_open(path, framework="pt") as file:
                text = (file.metadata() or {})[_FACTS]
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            facts = from_mapping(BackboneFacts, json.loads(text), where=str(path))
            own = {name: tensors[name] for name in ("centre", "scale", "inputs", "expected")}
            shapes = [(facts.features,), (), (2, *facts.input_shape), (2, facts.features)]
            if [tuple(tensor.shape) for tensor in own.values()] != shapes:
                raise ValueError("shapes")
            if any(
                not tensor.is_floating_point() or not tensor.isfinite().all()
                for tensor in own.values()
            ):
                raise ValueError("numbers")
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, F2LError) as error:
            raise DataError(
                "the backbone can't be read",
                where=str(path),
                expected="a file that f2l-admin target prepare has written",
                got=str(error) if isinstance(error, F2LError) else file_fault(error),
                code="other-backbone",
            ) from error
        network = {
            name.removeprefix(_NETWORK): tensor
            for name, tensor in tensors.items()
            if name.startswith(_NETWORK)
        }
        return cls(facts=facts, network=network, **own)
