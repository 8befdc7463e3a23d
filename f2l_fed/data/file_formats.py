"""Readers of the file formats in which packages carry their data."""

from __future__ import annotations

import gzip
import io
import math
import pickle
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from f2l_fed.data.array_checks import AnyArray
from f2l_fed.errors import DataError

__all__ = ["read_array_pickle", "read_idx", "read_table"]

# Numpy's own answer to "what rebuilds an array", wherever this version keeps it.
_REBUILD = np.empty(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _REBUILD,
    ("numpy._core.multiarray", "_reconstruct"): _REBUILD,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
_UNPICKLING = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
)


def read_table(path: Path) -> AnyArray:
    """Reads comma-separated numbers, gzipped or not, past header lines that start with ``@``.

    Returns:
        (rows, columns) float64.

    Raises:
        DataError: If the file is not such a table.
    """
    try:
        return np.loadtxt(path, delimiter=",", comments="@", ndmin=2)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise _unreadable(path, "comma-separated numbers", str(error)) from error


def read_idx(path: Path) -> AnyArray:
    """Reads a gzipped IDX file of bytes: two zeros, type 8, rank, big-endian sizes, values.

    Returns:
        uint8 array of the shape that the file states.

    Raises:
        DataError: If the file is not of that form.
    """
    data = _unzip(path)
    rank = data[3] if len(data) > 3 else 0
    start = 4 + 4 * rank
    if data[:3] != b"\x00\x00\x08" or not rank or len(data) < start:
        raise _unreadable(path, "an IDX header of bytes", data[:4].hex() or "nothing")
    shape = tuple(int.from_bytes(data[at : at + 4], "big") for at in range(4, start, 4))
    if len(data) - start != math.prod(shape):
        raise _unreadable(path, f"{math.prod(shape)} values", str(len(data) - start))
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def read_array_pickle(path: Path) -> AnyArray:
    """Reads one array from a gzipped pickle that may name nothing but what arrays are made of.

    Raises:
        DataError: If the pickle names anything else, or holds no plain array.
    """
    data = io.BytesIO(_unzip(path))
    try:
        array = _ArrayUnpickler(data).load()
    except _UNPICKLING as error:
        raise _unreadable(path, "a pickled numpy array", str(error)) from error
    if not isinstance(array, np.ndarray) or array.dtype.hasobject:
        raise _unreadable(path, "a pickled numpy array of numbers", type(array).__name__)
    return array


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name}, which is refused")
        return _ALLOWED[module, name]


def _unzip(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, "a gzip file", str(error)) from error


def _unreadable(path: Path, expected: str, got: str) -> DataError:
    return DataError(
        "the packaged data can't be read",
        where=str(path),
        expected=expected,
        got=got,
        remedy="Install the package again.",
    )
