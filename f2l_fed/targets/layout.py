"""The layout of flat weights: order, names and shapes of a network's parameters.

Site and server must agree on this to the last number, so a layout has a digest, and every
message and every zoo carries it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from f2l_fed.core.dense_tensors import oddity
from f2l_fed.errors import LayoutMismatch

DTYPE = "float32"


@dataclass(frozen=True, slots=True)
class WeightLayout:
    """Names and shapes of all parameters of a network, in order; every one is float32.

    Args:
        names: As in ``module.named_parameters()``, and those of batch statistics after them.
        shapes: One shape per name.
        frozen: Digest of the frozen part that the weights belong to; "" without one.

    >>> layout = WeightLayout(("w", "b"), ((2, 3), (2,)))
    >>> layout.size, layout.offsets
    (8, (0, 6))
    >>> layout.unflatten(torch.arange(8.0))["b"].tolist()
    [6.0, 7.0]
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    frozen: str = ""

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], frozen: str = "") -> WeightLayout:
        """The layout of named tensors, in their order, on a frozen part."""
        shapes = tuple(tuple(tensor.shape) for tensor in tensors.values())
        return cls(tuple(tensors), shapes, frozen)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> WeightLayout:
        """Reads what `to_json` wrote.

        Raises:
            LayoutMismatch: If it isn't a description of a layout.
        """
        try:
            tensors = value["tensors"]
            if any(tensor["dtype"] != DTYPE for tensor in tensors):
                raise ValueError("dtype")
            return cls(
                tuple(str(tensor["name"]) for tensor in tensors),
                tuple(tuple(int(n) for n in tensor["shape"]) for tensor in tensors),
                str(value.get("frozen", "")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise LayoutMismatch(
                "invalid layout",
                expected='{"tensors": [{"name", "shape", "dtype": "float32"}, …]}',
                got=type(error).__name__,
            ) from error

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        tensors = [
            {"name": name, "shape": list(shape), "dtype": DTYPE}
            for name, shape in zip(self.names, self.shapes, strict=True)
        ]
        # Without a frozen part the digest is what it was before there were any.
        return {"tensors": tensors} | ({"frozen": self.frozen} if self.frozen else {})

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of elements of each tensor."""
        return tuple(prod(shape) for shape in self.shapes)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Index of each tensor's first element in the flat vector."""
        offsets, total = [], 0
        for size in self.sizes:
            offsets.append(total)
            total += size
        return tuple(offsets)

    @property
    def size(self) -> int:
        """D, the length of the flat vector."""
        return sum(self.sizes)

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON, 64 hexadecimal digits."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def flatten(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Named tensors to one vector.

        Args:
            tensors: Exactly this layout's names and shapes, in any order.

        Returns:
            (D,) float32.

        Raises:
            LayoutMismatch: If a name or a shape differs, or a tensor is sparse, complex or without
                numbers.
        """
        for name in tensors:
            if found := oddity(tensors[name]):
                raise LayoutMismatch(
                    "the tensor can't be weights",
                    where=name,
                    expected="a dense tensor of real numbers in memory",
                    got=found,
                )
        common = {name: tensors[name] for name in self._common(tensors)}
        self.require(WeightLayout.of(common, self.frozen))
        return torch.cat([tensors[name].detach().reshape(-1).float() for name in self.names])

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """One vector to named tensors that are views of it; differentiable.

        Args:
            vector: (D,) float32.

        Raises:
            LayoutMismatch: If the vector has another length.
        """
        found = oddity(vector)
        if found or vector.shape != (self.size,):
            raise LayoutMismatch(
                "wrong number of weights",
                expected=str(self.size),
                got=found or str(tuple(vector.shape)),
            )
        parts = vector.split(self.sizes)
        return {
            name: part.view(shape)
            for name, part, shape in zip(self.names, parts, self.shapes, strict=True)
        }

    def require(self, other: WeightLayout, *, where: str = "") -> None:
        """Raises LayoutMismatch, naming the first tensor that differs, unless both are equal."""
        if self == other:
            return
        mine, theirs = _pairs(self), _pairs(other)
        if mine == theirs:
            raise LayoutMismatch(
                "the weights belong to another frozen part",
                where=where,
                expected=self.frozen or "none",
                got=other.frozen or "none",
                remedy="Use the same backbone file on both sides.",
            )
        index = next(
            (i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b),
            min(len(mine), len(theirs)),
        )
        raise LayoutMismatch(
            "the weights have another layout",
            where=where,
            expected=f"{_show(mine, index)} (digest {self.digest[:12]})",
            got=f"{_show(theirs, index)} (digest {other.digest[:12]})",
            remedy="Use the same target network and the same version on both sides.",
        )

    def _common(self, tensors: Mapping[str, Tensor]) -> Sequence[str]:
        known = [name for name in self.names if name in tensors]
        return known + [name for name in tensors if name not in self.names]


def layer_numbers(layout: WeightLayout) -> Tensor:
    """(D,) int64, the number of the layer that each weight is in; weight and bias share one.

    >>> layer_numbers(WeightLayout(("0.weight", "0.bias", "2.weight"), ((2, 1), (2,), (1, 2))))
    tensor([0, 0, 0, 0, 1, 1])
    """
    owners = [name.rpartition(".")[0] for name in layout.names]
    numbers = [list(dict.fromkeys(owners)).index(owner) for owner in owners]
    return torch.tensor(numbers).repeat_interleave(torch.tensor(layout.sizes))


def _pairs(layout: WeightLayout) -> list[tuple[str, tuple[int, ...]]]:
    return list(zip(layout.names, layout.shapes, strict=True))


def _show(pairs: list[tuple[str, tuple[int, ...]]], index: int) -> str:
    return f"{pairs[index][0]} {pairs[index][1]}" if index < len(pairs) else "no further tensor"
