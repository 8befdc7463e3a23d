"""Durable files: a crash leaves the old content or the new, and nothing in between."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

_PIECE_BYTES = 2**20
_waiting = True


def write_atomically(
    path: Path, content: str | bytes | Iterable[bytes], *, mode: int = 0o644
) -> None:
    """Writes a file durably: readers and crashes see the old one or the new one.

    Any number of threads and processes may write the same file; one of them is the last.

    Args:
        path: The file.
        content: All of it, or its pieces in order, such as those of `file_pieces`.
        mode: Its permissions, less those that the umask takes.
    """
    whole = content.encode() if isinstance(content, str) else content
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.draft")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines((whole,) if isinstance(whole, bytes) else whole)
            file.flush()
            fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def file_pieces(path: Path, start: int = 0) -> Iterator[bytes]:
    """The content of a file from a byte on, a piece at a time: large files don't fill the memory.

    Raises:
        OSError: If it can't be read.
    """
    with path.open("rb") as file:
        file.seek(start)
        while piece := file.read(_PIECE_BYTES):
            yield piece


def fsync_folder(path: Path) -> None:
    """Makes renames inside a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync(descriptor: int) -> None:
    """Waits until what was written to an open file is safe from a loss of power."""
    if _waiting:
        os.fsync(descriptor)


def write_without_waiting() -> None:
    """Makes `fsync` of this process return at once, from now on.

    For sites that are simulated: nothing goes on from their files after a loss of power.
    """
    global _waiting
    _waiting = False
