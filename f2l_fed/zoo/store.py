"""Where the bytes of a zoo lie: five verbs and a lock, on the local file system."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from f2l_fed.errors import ZooError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class Store(Protocol):
    """Named, immutable byte strings. Every failure is a `ZooError` that names the file."""

    def put_new(self, name: str, data: bytes) -> bool:
        """Makes ``data`` durable under a free name; False, and no change, if it is taken."""

    def get(self, name: str) -> memoryview:
        """The bytes, read-only, fetched no sooner than they are looked at if that is possible."""

    def list(self, folder: str) -> list[str]:
        """All full names in a folder, sorted."""

    def delete(self, name: str) -> None:
        """Durably removes a name, or does nothing if there is no such name."""

    def exists(self, name: str) -> bool:
        """Whether there is such a name."""

    def lock(self, *, alone: bool) -> AbstractContextManager[None]:
        """Held by writers between a shard and its log entry (shared) and by erasure (alone).

        It keeps erasure from taking an unfinished write for the remains of a dead one. Order among
        writers does not rest on it but on `put_new`. The holder's death releases it.
        """

    def describe(self, name: str) -> str:
        """The name as a user knows it, for messages."""


class LocalStore:
    """A folder on a POSIX file system with hard links.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def make_folders(self) -> None:
        """Creates the folder and its parts durably; harmless if they are there."""
        with explained(self.root):
            for folder in ("log", "shards", "tmp"):
                (self.root / folder).mkdir(parents=True, exist_ok=True)
            _sync_folder(self.root)
            _sync_folder(self.root.parent)

    def put_new(self, name: str, data: bytes) -> bool:
        path = self.root / name
        temporary = self.root / "tmp" / uuid.uuid4().hex
        with explained(path):
            temporary.parent.mkdir(exist_ok=True)
            try:
                with temporary.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                return _link(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
                # Also after losing: the winner may not have come to this point yet.
                _sync_folder(path.parent)

    def get(self, name: str) -> memoryview:
        path = self.root / name
        with explained(path), path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return memoryview(b"")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def list(self, folder: str) -> list[str]:
        with explained(self.root / folder):
            return sorted(f"{folder}/{path.name}" for path in (self.root / folder).iterdir())

    def delete(self, name: str) -> None:
        path = self.root / name
        with explained(path):
            path.unlink(missing_ok=True)
            _sync_folder(path.parent)

    def exists(self, name: str) -> bool:
        return (self.root / name).exists()

    def lock(self, *, alone: bool) -> AbstractContextManager[None]:
        return locked(self.root / "lock", alone=alone)

    def describe(self, name: str) -> str:
        return str(self.root / name)


@contextmanager
def locked(path: Path, *, alone: bool) -> Iterator[None]:
    """Holds a lock file, shared or alone, against other threads and processes.

    Raises:
        ZooError: If the file can't be opened or locked.
    """
    with explained(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with explained(path):
            fcntl.flock(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns an OSError of the body into a ZooError about ``path``."""
    try:
        yield
    except FileNotFoundError as error:
        raise ZooError(
            "the file is missing",
            where=str(path),
            remedy="Restore it from a backup; verify the zoo to see what else is wrong.",
        ) from error
    except OSError as error:
        if error.errno in _FULL:
            raise ZooError(
                "there is no room left to write",
                where=str(path),
                got=str(error.strerror),
                remedy="Free some space and repeat; all earlier commits are safe.",
            ) from error
        if error.errno in _FORBIDDEN:
            raise ZooError(
                "the folder is not writable or the file not readable",
                where=str(path),
                got=str(error.strerror),
                remedy="Give this user the right to it, and check that it isn't mounted read-only.",
            ) from error
        raise ZooError("the file system refused", where=str(path), got=str(error)) from error


def _link(temporary: Path, path: Path) -> bool:
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    return True


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
