"""The interface of stores: named bytes and a lock, in a folder or in an object store."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from f2l_fed.errors import ZooError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
Bytes = bytes | bytearray | memoryview
Name = str | Callable[[], str]


class Store(Protocol):
    """A store of named, immutable bytes. Every failure is a `ZooError` with the name.

    Args:
        index_folder: A local folder for the index and its lock.
        mapped: Whether bytes from `get` cost nothing until they are accessed.
        patience_s: Seconds that a shard may wait for its log entry before `abandoned` may list it.
    """

    index_folder: Path
    mapped: bool
    patience_s: float

    def prepare(self) -> None:
        """Prepares the store for the first `put_new`; harmless if it is prepared."""

    def put_new(self, name: Name, data: Bytes, *, after: str = "", lasting: bool = True) -> bool:
        """Makes ``data`` durable under a free name; False, and no change, if it is taken.

        A shard's name follows from its content: a store may write an existing one again.

        Args:
            name: The name, or a function that returns it, which is called as late as possible.
            after: A folder that is settled before the name is visible.
            lasting: Whether the name is durable on return; otherwise a later `settle` makes it so.
        """

    def get(self, name: str) -> memoryview:
        """The bytes, read-only; where possible they are fetched at the first access."""

    def get_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[memoryview]:
        """Parts of the bytes, from start to before stop; shorter where the bytes end."""

    def find_all(self, names: Sequence[str]) -> list[Bytes | None]:
        """The bytes of small files; None for missing ones."""

    def names(self, folder: str) -> list[str]:
        """All full names in a folder, sorted."""

    def delete(self, *names: str) -> int:
        """Removes names durably, in any order; missing ones are skipped.

        Returns:
            Their size in bytes.
        """

    def settle(self, folder: str) -> None:
        """Makes all visible names in a folder durable."""

    def exists(self, name: str) -> bool:
        """Whether a name exists."""

    def size_bytes(self, name: str) -> int:
        """The size of a name's bytes."""

    def lock(self, *, shared: bool) -> AbstractContextManager[None]:
        """The lock that writers hold between a shard and its log entry (shared), erasure alone.

        It keeps erasure from taking an unfinished write for that of a dead writer. Order among
        writers does not rest on it but on `put_new`. The holder's death releases it. A store
        without locks does nothing here and is careful in `abandoned` instead.
        """

    def abandoned(self) -> list[str]:
        """Shards and unfinished files that no writer is working on; the caller holds the lock.

        Shards in use are among them.
        """

    def describe(self, name: str) -> str:
        """The name with its folder or URL, for messages."""


def resolve_name(name: Name) -> str:
    """The name itself; calls the function that returns it."""
    return name if isinstance(name, str) else name()


@contextmanager
def zoo_errors(path: Path) -> Iterator[None]:
    """Turns an OSError of the body into a ZooError about ``path``."""
    try:
        yield
    except FileNotFoundError as error:
        raise missing_file(str(path)) from error
    except OSError as error:
        if error.errno in _FULL:
            raise ZooError(
                "no space left to write",
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
        raise ZooError("the file system failed", where=str(path), got=str(error)) from error


def missing_file(where: str) -> ZooError:
    """The error about a missing file."""
    return ZooError(
        "the file is missing",
        where=where,
        remedy="Restore it from a backup; verify the zoo to see what else is wrong.",
    )
