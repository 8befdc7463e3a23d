"""Coded rows among the arrays of an answer: an array of bytes in the place of one of float32.

What they are relative to depends on their place alone and on what was sent, never on the answer.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from flwr.app import Array
from torch import Tensor

from f2l_fed.errors import LayoutMismatch
from f2l_fed.wire.coding import decode, encode, head_of
from f2l_fed.wire.tensors import bytes_of, read_shaped, require_shape


def coded_array(rows: Tensor, known: Tensor | None = None) -> Array | None:
    """(n, D) or (D,) float32 as coded bytes; None where they are better sent as they are.

    Args:
        rows: The numbers.
        known: (D,) float32, what the receiver takes the distances from; None for none.
    """
    wide = rows.reshape(-1, rows.shape[-1])
    if known is not None and known.shape != wide.shape[1:]:
        return None
    data = encode(wide, known)
    return None if data is None else Array(np.frombuffer(data, np.uint8))


def read_rows(
    arrays: Mapping[str, Array],
    name: str,
    shape: tuple[int, int | None],
    known: Tensor | None = None,
) -> Tensor:
    """(n, D) float32 from one of some arrays, coded or not.

    Its shape is compared before its bytes are read or unpacked, so no message takes more memory
    than the rows that it should have.

    Args:
        arrays: By name.
        name: Of the array.
        shape: Rows and width; None takes any width.
        known: (D,) float32, as for `coded_array`.

    Raises:
        WireError: If it is missing, or its bytes are neither float32 of its shape nor such numbers
            coded.
        LayoutMismatch: If it has another shape.
    """
    data = bytes_of(arrays[name], name) if name in arrays else None
    if data is None:
        return read_shaped(arrays, name, shape)
    head = head_of(data, name)
    require_shape(name, (head.rows, head.width), shape)
    if known is not None and known.shape != (head.width,):
        raise LayoutMismatch(
            "rows of another width than what they are relative to",
            where=name,
            expected=str(known.numel()),
            got=str(head.width),
        )
    return decode(data, name, known)


def read_vector(arrays: Mapping[str, Array], name: str, known: Tensor) -> Tensor:
    """(D,) float32, coded as one row or not; arguments and errors as of `read_rows`."""
    if name in arrays and bytes_of(arrays[name], name) is not None:
        return read_rows(arrays, name, (1, known.numel()), known)[0]
    return read_shaped(arrays, name, (known.numel(),))


def width_of(array: Array, name: str) -> int | None:
    """The length of an array's rows, as it names it; None if it has no rows."""
    data = bytes_of(array, name)
    if data is not None:
        return head_of(data, name).width
    shape = tuple(array.shape)
    return shape[1] if len(shape) == 2 and type(shape[1]) is int else None
