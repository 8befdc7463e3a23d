"""Workspaces: where the large matrices of a fit lie, and who works on their parts.

A matrix is a tensor either way. One that lies on a disk is mapped from a file, so that the system
drops what isn't used, and another process opens it by name.
"""

from __future__ import annotations

import io
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
        """A float32 matrix whose numbers are to be written.

        Raises:
            OSError: If the disk has no room for it.
        """
        size = prod(shape)
        if self.folder is None or not size:
            return torch.empty(*shape)
        handle, path = tempfile.mkstemp(suffix=".f32", dir=self.folder)
        try:
            # A mapped file without room would end the process when it is written to.
            os.posix_fallocate(handle, 0, size * _FLOAT_BYTES)
        finally:
            os.close(handle)
        return _mapped(path, size).view(*shape)

    def free(self, matrix: Tensor) -> None:
        """Deletes the file of a matrix that nobody needs any more; of one in memory nothing."""
        if (path := matrix.untyped_storage().filename) is not None:
            Path(path).unlink(missing_ok=True)


IN_MEMORY = Workspace()


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
    return _mapped(path, size).as_strided(shape, stride, offset)


def _mapped(path: str, size: int) -> Tensor:
    make: Callable[..., Tensor] = torch.from_file
    return make(path, shared=True, size=size, dtype=torch.float32)
