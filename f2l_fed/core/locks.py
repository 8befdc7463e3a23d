"""Locks between processes, freed by the system when their holder dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from f2l_fed.errors import UsageError


@contextmanager
def locked(path: Path, *, wait: bool = True, what: str = "") -> Iterator[None]:
    """Holds a lock file alone, against other threads and processes.

    Args:
        path: The file; its folder is created when needed.
        wait: Until another holder is done; otherwise an error says that there is one.
        what: What the lock is for, as a clause, for that error.

    Raises:
        UsageError: If it is held and ``wait`` is false.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise UsageError(
                what or "another process holds the lock",
                where=str(path),
                remedy="Wait until it has ended, or end it.",
            ) from error
        yield
    finally:
        os.close(descriptor)
