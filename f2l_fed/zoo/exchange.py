"""Single networks out of the zoo and into it, as plain safetensors files."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from urllib.parse import quote

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from f2l_fed.errors import ZooError
from f2l_fed.zoo.manifest import Manifest
from f2l_fed.zoo.records import Floats, Record
from f2l_fed.zoo.sealed import canonical
from f2l_fed.zoo.store import explained

CONTEXT = "f2l.context"


def write_file(
    folder: Path, manifest: Manifest, record: Record, weights: Floats, context: Floats | None
) -> Path:
    """Writes one network with named tensors.

    Args:
        folder: Is created if need be; a file of the same record is replaced.
        weights: (D,) float32.
        context: (C,) float32, to be added as the tensor "f2l.context"; None to leave it out.

    Returns:
        The file, named after the record's key.
    """
    tensors = dict(_split(weights, manifest.shapes))
    if context is not None:
        tensors[CONTEXT] = context
    metadata = {
        "key": record.key,
        "site": record.site,
        "round": str(record.round),
        "parent": record.parent,
        "status": record.status,
        "reason": record.reason,
        "metrics": canonical(dict(record.metrics)).decode(),
        "lineage": manifest.lineage,
        "layout_digest": manifest.layout_digest,
    }
    path = folder / f"{quote(record.key, safe='')}.safetensors"
    unfinished = folder / uuid.uuid4().hex
    with explained(path):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            unfinished.write_bytes(save(tensors, metadata))
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    return path


def read_file(path: Path, manifest: Manifest) -> tuple[Floats, Floats | None, str]:
    """Reads one network.

    Returns:
        weights (D,) float32; context (C,) float32, or None if the file has none; the file's sha256.

    Raises:
        ZooError: If it isn't safetensors, or a name, shape or type differs from the zoo's layout.
    """
    with explained(path), path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        with safe_open(path, framework="numpy") as tensors:
            names = set(tensors.keys())
            shapes = dict(manifest.shapes)
            if CONTEXT in names:
                shapes[CONTEXT] = (manifest.context_dim,)
            _require_names(names, set(shapes), path)
            for name, shape in shapes.items():
                part = tensors.get_slice(name)
                _require_tensor(path, name, shape, tuple(part.get_shape()), part.get_dtype())
            weights = np.concatenate([tensors.get_tensor(n).ravel() for n in manifest.shapes])
            context = tensors.get_tensor(CONTEXT) if CONTEXT in names else None
    except SafetensorError as error:
        raise ZooError("not a safetensors file", where=str(path), got=str(error)) from error
    return weights, context, sha256


def _split(weights: Floats, shapes: Mapping[str, tuple[int, ...]]) -> Sequence[tuple[str, Floats]]:
    ends = np.cumsum([prod(shape) for shape in shapes.values()])
    parts = np.split(weights, ends[:-1])
    return [
        (name, part.reshape(shape))
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    ]


def _require_names(found: set[str], expected: set[str], path: Path) -> None:
    if found == expected:
        return
    missing, surplus = sorted(expected - found)[:5], sorted(found - expected)[:5]
    raise ZooError(
        "the tensors are not those of the zoo's layout",
        where=str(path),
        expected=f"also {', '.join(missing)}" if missing else "no further tensor",
        got=f"also {', '.join(surplus)}" if surplus else "none of these",
        remedy="Export the network from the zoo's target architecture, with its parameter names.",
    )


def _require_tensor(
    path: Path, name: str, expected: tuple[int, ...], shape: tuple[int, ...], dtype: str
) -> None:
    if shape != expected or dtype != "F32":
        raise ZooError(
            "the tensor doesn't fit the zoo's layout",
            where=f"{path}, tensor {name}",
            expected=f"{expected} F32",
            got=f"{shape} {dtype}",
            remedy="Export the network as float32 from the zoo's target architecture.",
        )
