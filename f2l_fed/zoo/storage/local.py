"""The local store: a folder of a POSIX file system with hard links."""

from __future__ import annotations

import errno
import mmap
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from math import inf
from pathlib import Path

from f2l_fed.core.locks import locked
from f2l_fed.errors import ZooError
from f2l_fed.zoo.storage.store import Bytes, Name, resolve_name, zoo_errors


class LocalStore:
    """A store in a folder.

    Every change goes through the functions of `os` one system call at a time, between which the
    tests let the machine die.

    Args:
        root: The folder.
    """

    mapped = True
    patience_s = inf

    def __init__(self, root: Path) -> None:
        self.root = root
        self.index_folder = root

    def prepare(self) -> None:
        """Creates the folder and its parts durably; harmless if they exist."""
        with zoo_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            for folder in ("log", "shards", "tmp"):
                (self.root / folder).mkdir(exist_ok=True)
            _sync_folder(self.root)
            _sync_folder(self.root.parent)

    def put_new(self, name: Name, data: Bytes, *, after: str = "", lasting: bool = True) -> bool:
        temporary = self.root / "tmp" / uuid.uuid4().hex
        path = self.root / name if isinstance(name, str) else temporary
        with zoo_errors(path):
            temporary.parent.mkdir(exist_ok=True)
            try:
                _write_new(temporary, data)
                if after:
                    # Now that the file is synced, the folder mostly is too and costs little.
                    _sync_folder(self.root / after)
                path = self.root / resolve_name(name)
                return _link(temporary, path)
            finally:
                # The first error says what happened; a file that stays does no harm.
                with suppress(OSError):
                    os.unlink(temporary)  # noqa: PTH108
                # Also if another writer was first: it may not have come to this point yet.
                if lasting:
                    _sync_folder(path.parent)

    def get(self, name: str) -> memoryview:
        path = self.root / name
        with zoo_errors(path), path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return memoryview(b"")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def get_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[memoryview]:
        data = self.get(name)
        return [data[start:stop] for start, stop in ranges]

    def find_all(self, names: Sequence[str]) -> list[Bytes | None]:
        return [self._find(name) for name in names]

    def names(self, folder: str) -> list[str]:
        with zoo_errors(self.root / folder):
            return sorted(f"{folder}/{name}" for name in os.listdir(self.root / folder))  # noqa: PTH208

    def delete(self, *names: str) -> int:
        size_bytes = 0
        for path in (self.root / name for name in names):
            with zoo_errors(path), suppress(FileNotFoundError):
                size_bytes += path.stat().st_size
                path.unlink()
        for folder in {(self.root / name).parent for name in names}:
            with zoo_errors(folder):
                _sync_folder(folder)
        return size_bytes

    def settle(self, folder: str) -> None:
        with zoo_errors(self.root / folder):
            _sync_folder(self.root / folder)

    def exists(self, name: str) -> bool:
        return (self.root / name).exists()

    def size_bytes(self, name: str) -> int:
        with zoo_errors(self.root / name):
            return (self.root / name).stat().st_size

    def lock(self, *, shared: bool) -> AbstractContextManager[None]:
        return locked_in_zoo(self.root / "lock", shared=shared)

    def abandoned(self) -> list[str]:
        return [*self.names("tmp"), *self.names("shards")]

    def describe(self, name: str) -> str:
        return str(self.root / name)

    def _find(self, name: str) -> bytes | None:
        path = self.root / name
        with zoo_errors(path):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return None


@contextmanager
def locked_in_zoo(path: Path, *, shared: bool) -> Iterator[None]:
    """Holds a lock file of a zoo's folder, shared or alone.

    Raises:
        ZooError: If the file can't be opened or locked.
    """
    with ExitStack() as held:
        with zoo_errors(path):
            held.enter_context(locked(path, shared=shared, mode=0o666, create_folder=False))
        yield


def _write_new(path: Path, data: Bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""Errors of file systems without hard links."""


def _link(temporary: Path, path: Path) -> bool:
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno in _NO_LINKS:
            raise ZooError(
                "this file system has no hard links, by which the zoo keeps its writers apart",
                where=str(path.parent),
                got=str(error.strerror),
                remedy="Put the zoo on a local disk, or in an object store.",
            ) from error
        raise
    return True


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
