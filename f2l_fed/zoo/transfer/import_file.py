"""Import of networks from foreign files: every byte is checked, and no code in them is run."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np

from f2l_fed.core.dense_tensors import oddity
from f2l_fed.errors import UsageError, ZooError
from f2l_fed.zoo.format.manifest import Manifest
from f2l_fed.zoo.records import Floats
from f2l_fed.zoo.storage.store import zoo_errors

CONTEXT = "f2l.context"
MAX_HEADER_BYTES = 16 << 20
_LENGTH_BYTES = 8
_ZIP = b"PK\x03\x04"
# Whatever torch's reader of weights stumbles over in a file that was made to trip it.
_UNREADABLE = (
    RuntimeError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    ImportError,
)
_FLOAT = np.dtype("<f4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A tensor in the header of a file.

    Args:
        dtype: Type, as safetensors names it.
        shape: Shape.
        start: Position of its bytes within the file.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int


def read_file(path: Path, manifest: Manifest) -> tuple[Floats, Floats | None, str]:
    """Reads one network: a safetensors file, or a state_dict that torch.save wrote.

    Returns:
        weights (D,) float32; context (C,) float32, or None if the file has none; the file's sha256.

    Raises:
        UsageError: If there is no such file.
        ZooError: If it is neither, or a name, shape or type differs from the zoo's layout.
    """
    if not path.is_file():
        raise UsageError("no such file", where=str(path), remedy="Check the path.")
    with zoo_errors(path), path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        is_zip = file.read(len(_ZIP)) == _ZIP
        found = _torch(path, manifest) if is_zip else _safetensors(file, path, manifest)
    weights = np.concatenate([found[name].ravel() for name in manifest.shapes])
    return weights, found.get(CONTEXT), sha256


def read_with_context(
    path: Path, manifest: Manifest, context: Floats | None
) -> tuple[Floats, Floats, str]:
    """Reads one network, with its context where none is given.

    Returns:
        As `read_file`.

    Raises:
        ZooError: As with `read_file`, or if there is no context.
    """
    weights, found, sha256 = read_file(path, manifest)
    chosen = found if context is None else context
    if chosen is None:
        raise ZooError(
            "the file has no context",
            where=str(path),
            expected=f"a tensor {CONTEXT} ({manifest.context_dim},) F32",
            remedy="Pass a context, or export the network with its context.",
        )
    return weights, chosen, sha256


def header(file: BinaryIO, path: Path) -> dict[str, Tensor]:
    """Reads the header of a safetensors file and compares it with the file's size.

    Nothing is allocated for a tensor: their bytes must be adjacent behind the header, in any order
    and without holes, and end at the end of the file.

    Raises:
        ZooError: If the file is anything else.
    """
    size_bytes = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    limit = min(MAX_HEADER_BYTES, size_bytes - _LENGTH_BYTES)
    if not 0 < length <= limit:
        _refuse(path, f"a header of 1 to {max(limit, 1)} bytes", f"one of {length}")
    try:
        value = json.loads(file.read(length), object_pairs_hook=_once)
        value.pop("__metadata__", None)
        tensors = {name: _tensor(path, name, about) for name, about in value.items()}
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        _refuse(path, "a header of tensors in JSON", str(error)[:200])
    behind = 0
    for name, (start, stop, tensor) in sorted(tensors.items(), key=lambda item: item[1][:2]):
        if start != behind:
            _refuse(path, f"tensor {name} at byte {behind} of the data", f"at {start}")
        if stop - start != prod(tensor.shape) * _FLOAT.itemsize and tensor.dtype == "F32":
            _refuse(path, f"{prod(tensor.shape)} numbers in tensor {name}", f"{stop - start} bytes")
        behind = stop
    first = _LENGTH_BYTES + length
    if first + behind != size_bytes:
        _refuse(path, f"{first + behind} bytes", f"{size_bytes}")
    return {
        name: Tensor(dtype=tensor.dtype, shape=tensor.shape, start=first + start)
        for name, (start, _, tensor) in tensors.items()
    }


def _safetensors(file: BinaryIO, path: Path, manifest: Manifest) -> dict[str, Floats]:
    tensors = header(file, path)
    shapes = _expected(tensors, manifest)
    _require_names(set(tensors), set(shapes), path)
    for name, shape in shapes.items():
        _require_tensor(path, name, shape, tensors[name].shape, tensors[name].dtype)
    found = {}
    for name, shape in shapes.items():
        file.seek(tensors[name].start)
        found[name] = np.fromfile(file, _FLOAT, prod(shape)).reshape(shape)
    return found


def _torch(path: Path, manifest: Manifest) -> dict[str, Floats]:
    # Imported here, since most users of the zoo don't need torch.
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (*_UNREADABLE, pickle.UnpicklingError) as error:
        raise ZooError(
            "not a file that torch can load as weights only",
            where=str(path),
            # torch's own text would recommend the unsafe way of loading.
            got=f"{type(error).__name__} from torch.load",
            remedy="Save it with torch.save(model.state_dict(), …), or as safetensors.",
        ) from error
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(part, torch.Tensor) for name, part in state.items()
    ):
        raise ZooError(
            "the file has no state_dict",
            where=str(path),
            expected="tensors by name",
            got=type(state).__name__,
            remedy="Save it with torch.save(model.state_dict(), …).",
        )
    shapes = _expected(state, manifest)
    _require_names(set(state), set(shapes), path)
    for name, shape in shapes.items():
        if found := oddity(state[name]):
            _require_tensor(path, name, shape, (), found)
        dtype = "F32" if state[name].dtype == torch.float32 else str(state[name].dtype)
        _require_tensor(path, name, shape, tuple(state[name].shape), dtype)
    # A copy, since a mapping changes with the file.
    return {name: state[name].detach().clone().contiguous().numpy() for name in shapes}


def _expected(found: Mapping[str, object], manifest: Manifest) -> dict[str, tuple[int, ...]]:
    context = {CONTEXT: (manifest.context_dim,)} if CONTEXT in found else {}
    return {**manifest.shapes, **context}


def _tensor(path: Path, name: str, about: Any) -> tuple[int, int, Tensor]:
    try:
        dtype, shape, (start, stop) = about["dtype"], about["shape"], about["data_offsets"]
        numbers = [*shape, start, stop]
    except (KeyError, TypeError, ValueError):
        _refuse(path, f"dtype, shape and data_offsets of tensor {name}", str(about)[:200])
    if any(type(n) is not int or n < 0 for n in numbers) or stop < start or type(dtype) is not str:
        _refuse(path, f"sizes of tensor {name} from 0 up", str(about)[:200])
    return start, stop, Tensor(dtype=dtype, shape=tuple(shape), start=start)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is repeated")
    return found


def _refuse(path: Path, expected: str, got: str) -> NoReturn:
    raise ZooError(
        "not a valid safetensors file",
        where=str(path),
        expected=expected,
        got=got,
        remedy="Write the file again.",
    )


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
            "the tensor is not that of the zoo's layout",
            where=f"{path}, tensor {name}",
            expected=f"{expected} F32",
            got=f"{shape} {dtype}" if shape else dtype,
            remedy="Export the network as float32 from the zoo's target architecture.",
        )
