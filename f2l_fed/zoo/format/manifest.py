"""The manifest of a zoo, ``zoo.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from f2l_fed.errors import ZooError
from f2l_fed.zoo.format.sealed_json import seal, unseal
from f2l_fed.zoo.storage.store import Store

NAME = "zoo.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The kind of networks in a zoo, fixed at its creation.

    Args:
        lineage: Name of the common ancestry; only such networks may ever be averaged.
        layout_digest: Digest of the weight layout.
        layout: ``{"tensors": [{"name": …, "shape": […], "dtype": "float32"}, …]}``.
        context_dim: C, length of a context.

    Raises:
        ZooError: If the layout or the context's length is invalid.
    """

    lineage: str
    layout_digest: str
    layout: Mapping[str, Any]
    context_dim: int

    def __post_init__(self) -> None:
        try:
            sound = all(
                tensor["dtype"] == "float32" and isinstance(tensor["name"], str)
                for tensor in self.layout["tensors"]
            ) and len(self.shapes) == len(self.layout["tensors"])
            sound = sound and self.weight_dim > 0 and self.context_dim > 0
        except (KeyError, TypeError, ValueError):
            sound = False
        if not sound:
            raise ZooError(
                "invalid layout or length of a context",
                where=NAME,
                expected='{"tensors": [{"name", "shape", "dtype": "float32"}, …]}, '
                "distinct names, at least one weight and one context number",
                got=f"{str(self.layout)[:200]}, context_dim {self.context_dim}",
                remedy="Pass the JSON of a weight layout.",
            )

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by tensor name, in the order of a row."""
        return {
            tensor["name"]: tuple(int(n) for n in tensor["shape"])
            for tensor in self.layout["tensors"]
        }

    @property
    def weight_dim(self) -> int:
        """D, length of a row of weights."""
        return sum(prod(shape) for shape in self.shapes.values())


def write(store: Store, manifest: Manifest) -> None:
    """Creates ``zoo.json``.

    Raises:
        ZooError: If there is one already, or it can't be written.
    """
    body = {
        "lineage": manifest.lineage,
        "layout_digest": manifest.layout_digest,
        "layout": manifest.layout,
        "context_dim": manifest.context_dim,
    }
    if not store.put_new(NAME, seal(body)):
        raise ZooError(
            "there is a zoo already",
            where=store.describe(NAME),
            remedy="Open it, or choose another folder.",
        )


def read(store: Store) -> Manifest:
    """Reads ``zoo.json``.

    Raises:
        ZooError: If there is none, or it is damaged or of an unknown format.
    """
    where = store.describe(NAME)
    (data,) = store.find_all([NAME])
    if data is None:
        raise ZooError("not a zoo", where=where, remedy="Check the path, or create a zoo there.")
    body = unseal(data, where=where)
    try:
        return Manifest(**body)
    except TypeError as error:
        raise ZooError("not a zoo", where=where, got=", ".join(sorted(body))) from error
