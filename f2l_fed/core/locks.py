"""Locks between threads and processes, freed by the system when their holder dies."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from f2l_fed.errors import UsageError

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""Errors of file systems without locks."""


@contextmanager
def locked(
    path: Path,
    *,
    shared: bool = False,
    wait: bool = True,
    what: str = "",
    mode: int = 0o644,
    create_folder: bool = True,
) -> Iterator[None]:
    """Holds a lock file.

    Args:
        path: The file, which is created when needed and stays.
        shared: Whether others may hold it shared at the same time; otherwise it is held alone.
        wait: Until other holders are done; otherwise an error says that there is one.
        what: What the lock is for, as a clause, for that error.
        mode: Permissions of a new file.
        create_folder: Whether a missing folder is created, too.

    Raises:
        UsageError: If it is held by another and ``wait`` is false, or the file system has no locks.
        OSError: If the file can't be opened.
    """
    if create_folder:
        path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, mode)
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                what or "another process holds the lock",
                where=str(path),
                remedy="Wait until it has ended, or end it.",
            ) from error
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise UsageError(
                    "this file system has no locks",
                    where=str(path),
                    got=str(error.strerror),
                    remedy="Use a folder on a local disk, or mount this one with locks.",
                ) from error
            raise
        yield
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether somebody holds a lock file alone; no one does where there is no file.

    The answer takes a shared lock for a moment, which a holder who doesn't wait may run into.
    """
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False
