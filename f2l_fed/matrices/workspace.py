"""Workspaces: where the large matrices of a fit lie, and who works on their parts.

A matrix is a tensor either way. One that lies on a disk is mapped from a file, so that the system
drops what isn't used, and another process opens it by name.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from f2l_fed.errors import RoundError
from f2l_fed.matrices.blocks import EachPart, in_turn

_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Memory, or a folder for matrices that exceed it.

    Args:
        folder: Emptied and removed by its owner; on storage that all who work on parts share. None
            for memory.
        each: Runs the jobs on parts; elsewhere only with a folder.
    """

    folder: Path | None = None
    each: EachPart = in_turn

    def empty(self, *shape: int) -> Tensor:
        """A float32 matrix whose numbers are to be written; on a disk, in a safetensors file.

        Raises:
            OSError: If the disk has no room for it.
        """
        size = prod(shape)
        if self.folder is None or not size:
            return torch.empty(*shape)
        head = _header(shape)
        handle, path = tempfile.mkstemp(suffix=".safetensors", dir=self.folder)
        try:
            # A mapped file without room would end the process when it is written to.
            os.posix_fallocate(handle, 0, len(head) + size * _FLOAT_BYTES)
            os.write(handle, head)
        finally:
            os.close(handle)
        first = len(head) // _FLOAT_BYTES
        return _mapped(path, first + size)[first:].view(*shape)

    def free(self, matrix: Tensor) -> None:
        """Deletes the file of a matrix that nobody needs any more; of one in memory nothing."""
        if (path := matrix.untyped_storage().filename) is not None:
            Path(path).unlink(missing_ok=True)


IN_MEMORY = Workspace()

MATRIX = "w"
"""Name of the only tensor in a matrix's file."""


def file_of(matrix: Tensor) -> Path | None:
    """The safetensors file that holds a matrix and nothing else; None if there is none."""
    storage, head = matrix.untyped_storage(), _header(tuple(matrix.shape))
    if storage.filename is None or not matrix.is_contiguous():
        return None
    # A matrix of another shape has the same numbers, but is another file.
    path, first = Path(storage.filename), len(head) // _FLOAT_BYTES
    with path.open("rb") as file:
        same = file.read(len(head)) == head
    whole = storage.nbytes() == (first + matrix.numel()) * _FLOAT_BYTES
    return path if same and whole and matrix.storage_offset() == first else None


def _header(shape: tuple[int, ...]) -> bytes:
    """The first bytes of a safetensors file of such a matrix."""
    about = {"dtype": "F32", "shape": shape, "data_offsets": [0, prod(shape) * _FLOAT_BYTES]}
    text = json.dumps({MATRIX: about}, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    return len(text).to_bytes(8, "little") + text


def packed(value: object) -> bytes:
    """A job's arguments for another process: of a mapped matrix only the name of its file."""
    buffer = io.BytesIO()
    _Packer(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()


class _Packer(pickle.Pickler):
    def reducer_override(self, value: object) -> Any:
        if not isinstance(value, Tensor):
            return NotImplemented
        storage = value.untyped_storage()
        if storage.filename is None:
            return NotImplemented
        size = storage.nbytes() // _FLOAT_BYTES
        view = (tuple(value.shape), value.stride(), value.storage_offset())
        return _opened, (str(storage.filename), size, *view)


def _opened(path: str, size: int, shape: Any, stride: Any, offset: int) -> Tensor:
    # Otherwise it would be made, and of zeros.
    file = Path(path)
    if not file.is_file() or file.stat().st_size != size * _FLOAT_BYTES:
        raise RoundError(
            "a node of the cluster does not see the records of the retraining",
            where=path,
            remedy="Mount the federation's folder under the same path on all nodes, "
            "or set ray.part_workers to 0.",
        )
    return _mapped(path, size).as_strided(shape, stride, offset)


def _mapped(path: str, size: int) -> Tensor:
    make: Callable[..., Tensor] = torch.from_file
    return make(path, shared=True, size=size, dtype=torch.float32)
