"""The folder of one embedded Ray: its token, sockets, logs and spilled objects, for this user only.

Ray makes its folders, also an existing one that it is given, for everybody to read and write, and
leaves them behind; inside another one of mode 0700 nobody else reaches them. A folder is locked
while its process lives, so that the next start knows, and removes, those that a killed process has
left.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from f2l_fed.errors import ConfigError

TOKEN_FILE = "token"
RAY_FOLDER = "r"
_PREFIX = "f2l-ray-"
# Sockets lie 84 characters deeper, and their whole path may have 107.
_LONGEST = 23
_PLACES = ("/tmp", "/var/tmp")
_PATIENCE_S = 30.0


@contextmanager
def session_folder() -> Iterator[Path]:
    """Makes a folder, of mode 0700, with a fresh token in it, and removes it at the end.

    Folders of this user's ended processes are removed before.

    Yields:
        The folder. The token, 64 hexadecimal digits, is in its file `TOKEN_FILE`, of mode 0600;
        `RAY_FOLDER` in it is free for Ray's own.

    Raises:
        ConfigError: If no folder for temporary files has a short name and can be written in.
    """
    place = _place()
    _remove_abandoned(place)
    folder, lock = _locked_folder(place)
    try:
        descriptor = os.open(folder / TOKEN_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        yield folder
    finally:
        _remove(folder)
        os.close(lock)


def _place() -> Path:
    """The first folder for temporary files with a short name in which this user can write."""
    named = [tempfile.gettempdir(), *_PLACES, os.environ.get("XDG_RUNTIME_DIR", "")]
    for place in map(Path, filter(None, named)):
        if len(str(place)) <= _LONGEST and os.access(place, os.W_OK | os.X_OK):
            return place
    raise ConfigError(
        "Ray finds no folder for temporary files",
        where="TMPDIR",
        expected=f"a folder that can be written in, with a path of at most {_LONGEST} characters",
        got=", ".join(filter(None, named)),
        remedy="Set TMPDIR to one.",
    )


def _locked_folder(place: Path) -> tuple[Path, int]:
    """A new folder and the descriptor of its lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
        lock = _lock(folder)
        if lock is not None:
            return folder, lock
        # Another start has found it before it was locked, and removes it.


def _lock(folder: Path) -> int | None:
    """The descriptor of a folder's lock; None if it is held, or the folder is gone or another's."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        there = os.fstat(descriptor)
        if there.st_uid == os.geteuid() and os.path.samestat(there, folder.lstat()):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _remove_abandoned(place: Path) -> None:
    for folder in place.glob(f"{_PREFIX}*"):
        lock = _lock(folder)
        if lock is not None:
            _remove(folder)
            os.close(lock)


def _remove(folder: Path) -> None:
    """Removes a folder, in which Ray's last processes may still write for a moment."""
    end = time.monotonic() + _PATIENCE_S
    # The token first: nothing else in the folder is a secret by itself.
    with suppress(OSError):
        (folder / TOKEN_FILE).unlink()
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists() or time.monotonic() > end:
            return
        time.sleep(0.05)
