"""Weight vectors in Flower's records: written by layout, read with every byte checked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, RecordDict
from torch import Tensor

from f2l_fed.errors import LayoutMismatch, WireError
from f2l_fed.targets.layout import WeightLayout

_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(<f4|\|u1)', 'fortran_order': False, "
    rb"'shape': (\([\d, ]*\)), \} *\n",
    re.DOTALL,
)


def pack_rows(name: str, rows: Tensor, layout: WeightLayout) -> dict[str, ArrayRecord]:
    """(n, D) float32 rows as records "name.0", "name.1", …, each in the layout's shapes."""
    return {f"{name}.{i}": _pack_tensors(row, layout) for i, row in enumerate(rows)}


def unpack_rows(content: RecordDict, name: str, count: int, layout: WeightLayout) -> Tensor:
    """The inverse of `pack_rows`, (count, D) float32.

    Names and shapes are compared with the layout before a tensor is read, so that no message takes
    more memory than the rows that it should have.

    Raises:
        WireError: If a record is missing or a tensor disagrees with its header.
        LayoutMismatch: If a record does not hold exactly the layout's tensors.
    """
    if count < 1:
        raise WireError("the message has no episodes", where=name, got=str(count))
    return torch.stack([_unpack_tensors(content, f"{name}.{i}", layout) for i in range(count)])


def _pack_tensors(vector: Tensor, layout: WeightLayout) -> ArrayRecord:
    return ArrayRecord(
        {name: Array(tensor.numpy()) for name, tensor in layout.unflatten(vector).items()}
    )


def _unpack_tensors(content: RecordDict, key: str, layout: WeightLayout) -> Tensor:
    arrays = arrays_of(content, key)
    if extra := arrays.keys() - set(layout.names):
        raise LayoutMismatch("a tensor is not in the layout", where=key, got=min(extra))
    for name, shape in zip(layout.names, layout.shapes, strict=True):
        found = arrays.get(name)
        if found is None or tuple(found.shape) != shape:
            raise LayoutMismatch(
                "the weights have another layout",
                where=key,
                expected=f"{name} {shape}",
                got="no such tensor" if found is None else _shape(tuple(found.shape)),
                remedy="Use the same target network and the same version on both sides.",
            )
    return layout.flatten({name: read_array(arrays[name], name) for name in layout.names})


def _shape(sizes: tuple[Any, ...]) -> str:
    """A shape as an array names it, which may be anything."""
    plain = len(sizes) <= 16 and all(isinstance(size, int) for size in sizes)
    return str(sizes) if plain else "no valid shape"


def read_array(array: Array, name: str) -> Tensor:
    """Reads a float32 tensor into memory of its own.

    Raises:
        WireError: If the bytes are anything else.
    """
    if array.stype != "numpy.ndarray" or array.dtype != "float32":
        raise WireError(
            "a tensor has the wrong type",
            where=name,
            expected="float32",
            got=array.dtype[:32] if isinstance(array.dtype, str) else "no name of a type",
        )
    values = np.frombuffer(_content(array, name, b"<f4", 4), np.float32)
    try:
        return torch.from_numpy(values.reshape(tuple(array.shape)).copy())
    except ValueError as error:
        raise WireError("a tensor has an invalid shape", where=name) from error


def bytes_of(array: Array, name: str) -> memoryview | None:
    """The content of an array of bytes; None for an array of anything else.

    Raises:
        WireError: If it disagrees with the array's header.
    """
    if array.stype != "numpy.ndarray" or array.dtype != "uint8":
        return None
    return _content(array, name, b"|u1", 1)


def _content(array: Array, name: str, kind: bytes, size: int) -> memoryview:
    """The bytes behind an array's header, which has to say what the array does."""
    # numpy's own reader evaluates the header, opens archives and reserves whatever size is named.
    shape, header = tuple(array.shape), _NPY_HEADER.match(array.data)
    if (
        header is None
        or header[1] != kind
        or header[2] != repr(shape).encode()
        or len(array.data) - header.end() != size * math.prod(shape)
    ):
        raise WireError("a tensor disagrees with its header", where=name)
    return memoryview(array.data)[header.end() :]


def read_shaped(arrays: Mapping[str, Array], name: str, shape: tuple[int | None, ...]) -> Tensor:
    """Reads one of some arrays, of this shape; its shape is compared before its bytes are read.

    Args:
        arrays: By name.
        name: Of the array.
        shape: Its sizes; None takes any.

    Raises:
        WireError: If it is missing, or its bytes are anything but float32 of its shape.
        LayoutMismatch: If it has another shape.
    """
    array = arrays.get(name)
    if array is None:
        raise WireError("a part of the message is missing", expected=name)
    require_shape(name, tuple(array.shape), shape)
    return read_array(array, name)


def require_shape(name: str, found: tuple[Any, ...], shape: tuple[int | None, ...]) -> None:
    """Raises LayoutMismatch unless an array has this shape; None takes any size."""
    fits = len(found) == len(shape) and all(
        size in (None, told) for told, size in zip(found, shape, strict=True)
    )
    if not fits:
        raise LayoutMismatch(
            "an array has another shape",
            where=name,
            expected=str(shape).replace("None", "any"),
            got=_shape(found),
            remedy="Use the same target network and the same version on both sides.",
        )


def arrays_of(content: RecordDict, key: str) -> ArrayRecord:
    """One array record of a message.

    Raises:
        WireError: If it is missing.
    """
    # Flower's `array_records` would walk through all records each time.
    found = content.get(key)
    if not isinstance(found, ArrayRecord):
        raise WireError("a part of the message is missing", expected=key)
    return found
