"""Export of single networks as plain safetensors files."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from hashlib import sha256
from math import prod
from pathlib import Path
from urllib.parse import quote

import numpy as np
from safetensors.numpy import save

from f2l_fed.zoo.format.manifest import Manifest
from f2l_fed.zoo.format.sealed_json import canonical
from f2l_fed.zoo.records import Floats, Record
from f2l_fed.zoo.storage.store import zoo_errors
from f2l_fed.zoo.transfer.import_file import CONTEXT

_LONGEST_NAME = 200


def write_file(
    folder: Path, manifest: Manifest, record: Record, weights: Floats, context: Floats | None
) -> Path:
    """Writes one network with named tensors.

    Args:
        folder: The folder, which is created when needed; a file of the same record is replaced.
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
    path = folder / f"{_file_name(record.key)}.safetensors"
    unfinished = folder / uuid.uuid4().hex
    with zoo_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            unfinished.write_bytes(save(tensors, metadata))
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    return path


def _file_name(key: str) -> str:
    """A key as a file's name; of a long one its beginning and a digest of all of it."""
    name = quote(key, safe="")
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME - 33]}-{sha256(key.encode()).hexdigest()[:32]}"


def _split(weights: Floats, shapes: Mapping[str, tuple[int, ...]]) -> Sequence[tuple[str, Floats]]:
    ends = np.cumsum([prod(shape) for shape in shapes.values()])
    parts = np.split(weights, ends[:-1])
    return [
        (name, part.reshape(shape))
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    ]
