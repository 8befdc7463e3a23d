"""Weight vectors in Flower's records: written by layout, read with every byte checked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, RecordDict
from torch import Tensor

from f2l_fed.errors import LayoutMismatch, WireError
from f2l_fed.targets.layout import WeightLayout
from f2l_fed.wire.coding import decode, head_of

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
                got="no such tensor" if found is None else _shape(found),
                remedy="Use the same target network and the same version on both sides.",
            )
    return layout.flatten({name: read_array(arrays[name], name) for name in layout.names})


def _shape(array: Array) -> str:
    """An array's shape as it names it, which may be anything."""
    sizes = tuple(array.shape)
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
    values = np.frombuffer(_content(array, name, b"<f4"), np.float32)
    try:
        return torch.from_numpy(values.reshape(tuple(array.shape)).copy())
    except ValueError as error:
        raise WireError("a tensor has an invalid shape", where=name) from error


def _content(array: Array, name: str, kind: bytes) -> bytes:
    """The bytes behind an array's header, which has to say what the array does."""
    # numpy's own reader evaluates the header, opens archives and reserves whatever size is named.
    shape, header = tuple(array.shape), _NPY_HEADER.match(array.data)
    if (
        header is None
        or header[1] != kind
        or header[2] != repr(shape).encode()
        or len(array.data) - header.end() != np.dtype(kind.decode()).itemsize * math.prod(shape)
    ):
        raise WireError("a tensor disagrees with its header", where=name)
    return array.data[header.end() :]


def coded_bytes(array: Array, name: str) -> bytes | None:
    """The bytes of coded rows; None for an array of numbers.

    Raises:
        WireError: If they disagree with the array's header.
    """
    if array.dtype != "uint8" or array.stype != "numpy.ndarray":
        return None
    return _content(array, name, b"|u1")


def read_shaped(
    arrays: Mapping[str, Array],
    name: str,
    shape: tuple[int | None, ...],
    *,
    known: Tensor | None = None,
) -> Tensor:
    """Reads one of some arrays, of this shape; its shape is compared before its bytes are read.

    Args:
        arrays: By name.
        name: Of the array.
        shape: Its sizes; None takes any.
        known: The tensor that coded rows may be relative to; None if there is none.

    Raises:
        WireError: If it is missing, or its bytes are anything but float32 of its shape, or such
            numbers coded.
        LayoutMismatch: If it has another shape.
    """
    array = arrays.get(name)
    if array is None:
        raise WireError("a part of the message is missing", expected=name)
    data = coded_bytes(array, name)
    head = None if data is None else head_of(data, name)
    found = tuple(array.shape) if head is None else (head.rows, head.width)
    if head is not None and len(shape) == 1 and head.rows == 1:
        found = found[1:]
    fits = len(found) == len(shape) and all(
        size in (None, told) for told, size in zip(found, shape, strict=True)
    )
    if not fits:
        raise LayoutMismatch(
            "an array has another shape",
            where=name,
            expected=str(shape).replace("None", "any"),
            got=_shape(array) if head is None else str(found),
            remedy="Use the same target network and the same version on both sides.",
        )
    if data is None or head is None:
        return read_array(array, name)
    if head.relative and known is None:
        raise WireError("rows that are relative to nothing", where=name)
    wide = None if known is None else known.reshape(-1, head.width)
    return decode(data, name, known=wide).reshape(found)


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
