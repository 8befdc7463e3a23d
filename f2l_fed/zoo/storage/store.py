"""Where the bytes of a zoo lie: a few verbs and a lock, in a folder or in an object store."""

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
    """Named, immutable byte strings. Every failure is a `ZooError` that names the file.

    Args:
        index_folder: A local folder for the index and its lock.
        mapped: Whether `get` costs nothing for what isn't looked at.
        patience_s: How long a shard may wait for its log entry before `abandoned` may list it.
    """

    index_folder: Path
    mapped: bool
    patience_s: float

    def prepare(self) -> None:
        """Makes ready for the first `put_new`; harmless if it is."""

    def put_new(self, name: Name, data: Bytes, *, after: str = "", lasting: bool = True) -> bool:
        """Makes ``data`` durable under a free name; False, and no change, if it is taken.

        A shard's name follows from its content: a store may write an existing one again.

        Args:
            name: If it is still being found, it is asked for as late as possible.
            after: A folder that is settled before the name can be seen.
            lasting: False to leave it to a later `settle` that the name lasts; the data does.
        """

    def get(self, name: str) -> memoryview:
        """The bytes, read-only, fetched no sooner than they are looked at if that is possible."""

    def get_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[memoryview]:
        """Parts of the bytes, from start up to but without stop; shorter where the bytes end."""

    def find_all(self, names: Sequence[str]) -> list[Bytes | None]:
        """The bytes of small files, None for those that aren't there."""

    def names(self, folder: str) -> list[str]:
        """All full names in a folder, sorted."""

    def delete(self, *names: str) -> int:
        """Durably removes names, in any order; those that aren't there are left out.

        Returns:
            How many bytes they had.
        """

    def settle(self, folder: str) -> None:
        """Makes all names that can be seen in a folder last."""

    def exists(self, name: str) -> bool:
        """Whether there is such a name."""

    def size_bytes(self, name: str) -> int:
        """How many bytes a name has."""

    def lock(self, *, shared: bool) -> AbstractContextManager[None]:
        """Held by writers between a shard and its log entry (shared) and by erasure (alone).

        It keeps erasure from taking an unfinished write for the remains of a dead one. Order among
        writers does not rest on it but on `put_new`. The holder's death releases it. A store
        without locks does nothing here and is careful in `abandoned` instead.
        """

    def abandoned(self) -> list[str]:
        """Shards and unfinished files that no writer is at work on; the caller holds the lock.

        Shards in use are among them.
        """

    def describe(self, name: str) -> str:
        """The name as a user knows it, for messages."""


def named(name: Name) -> str:
    """The name itself, however long it takes."""
    return name if isinstance(name, str) else name()


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns an OSError of the body into a ZooError about ``path``."""
    try:
        yield
    except FileNotFoundError as error:
        raise missing_file(str(path)) from error
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


def missing_file(where: str) -> ZooError:
    """The error about a name that isn't there."""
    return ZooError(
        "the file is missing",
        where=where,
        remedy="Restore it from a backup; verify the zoo to see what else is wrong.",
    )
