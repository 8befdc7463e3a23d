"""Private files: the umask of the programs, and folders that no other account may enter."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PRIVATE = 0o077
_OTHERS_MAY_WRITE = 0o002
_given: list[int] = []


@contextmanager
def private_files() -> Iterator[None]:
    """Lets this process, and those it starts, make files for its own account alone.

    Every program of a federation or a site begins with this, whatever the umask it was given; also
    a decorator. The umask belongs to the whole process, so it must not be used in a library.
    """
    before = os.umask(_PRIVATE)
    _given.append(before)
    try:
        yield
    finally:
        _given.pop()
        os.umask(before)


@contextmanager
def exported_files() -> Iterator[None]:
    """Within `private_files`, makes files by the umask that the user has chosen.

    They are meant to leave the folder. Accounts outside the user's group can never write them.
    """
    before = os.umask(_PRIVATE)
    os.umask((_given[0] if _given else before) | _OTHERS_MAY_WRITE)
    try:
        yield
    finally:
        os.umask(before)


def private_folder(path: Path) -> str:
    """Creates a folder for this account alone, or takes the rights of others to one that exists.

    What lies in it is out of their reach then, whatever its own permissions.

    Returns:
        A sentence about an existing folder that others could enter; "" for all others.

    Raises:
        OSError: If the folder can't be created.
    """
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & _PRIVATE:
        return ""
    use = "change" if mode & 0o022 else "read"
    try:
        path.chmod(mode & ~_PRIVATE)
    except OSError:
        return f"{path}: other accounts can {use} it; its owner should run chmod go= on it."
    return f"{path}: other accounts could {use} it until now; it was closed to them."
