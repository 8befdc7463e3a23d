"""A disk that can lose its power, or refuse, between any two system calls of the zoo.

It watches the calls that change files below a folder. What has been synced is known at any time,
so that the worst that a power cut may leave can be put together: folders as they were when they
were last synced, files with what was in them when they were last synced.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHANGES = ("open", "write", "fsync", "link", "unlink", "mkdir")


class Disk:
    """Watches a folder; calls ``between`` after every change of it.

    Args:
        root: Exists; what is in it is taken for synced.
        between: Called with the number of the change and the name of the call.
        refuse: The number of the call that fails, with the error's number; None for none.
    """

    def __init__(
        self,
        root: Path,
        between: Callable[[int, str], None] | None = None,
        refuse: tuple[int, int] | None = None,
    ) -> None:
        self.root, self.between, self.refuse = root, between, refuse
        self.calls = 0
        self._real = {name: getattr(os, name) for name in CHANGES}
        self._contents: dict[int, bytes] = {}
        self._folders: dict[Path, dict[str, int]] = {}
        for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
            self._sync_folder(folder)
            for file in filter(Path.is_file, folder.iterdir()):
                self._contents[file.stat().st_ino] = file.read_bytes()

    @contextmanager
    def watched(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in CHANGES:
                patch.setattr(os, name, self._call(name))
            yield

    def best(self, image: Path) -> None:
        """What a killed process leaves: everything that was called for has happened."""
        shutil.copytree(self.root, image)

    def worst(self, image: Path) -> None:
        """What a power cut may leave: nothing has happened but what was synced."""
        image.mkdir()
        for folder, names in sorted(self._folders.items()):
            place = image / folder.relative_to(self.root)
            if place.parent.exists() or folder == self.root:
                place.mkdir(exist_ok=True)
                for name, inode in names.items():
                    if (folder / name) not in self._folders:
                        (place / name).write_bytes(self._contents.get(inode, b""))
        # SQLite's calls aren't watched: its file may be newer than all else.
        for file in self.root.glob("index.sqlite*"):
            shutil.copy(file, image)

    def _call(self, name: str) -> Callable[..., Any]:
        real = self._real[name]

        def call(*args: Any, **options: Any) -> Any:
            if not self._is_ours(name, args):
                return real(*args, **options)
            self.calls += 1
            if self.refuse is not None and self.refuse[0] == self.calls:
                if name == "write" and self.refuse[1] == errno.ENOSPC:
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                raise OSError(self.refuse[1], os.strerror(self.refuse[1]))
            if name == "write" and len(args[1]) > 1:
                # A short write is allowed; the zoo has to go on with the rest.
                args = (args[0], bytes(args[1])[: (len(args[1]) + 1) // 2])
            found = real(*args, **options)
            if name == "fsync":
                self._synced(args[0])
            if self.between is not None:
                self.between(self.calls, name)
            return found

        return call

    def _is_ours(self, name: str, args: tuple[Any, ...]) -> bool:
        if name == "open" and not args[1] & os.O_CREAT:
            return False
        place = args[1] if name == "link" else args[0]
        path = Path(f"/proc/self/fd/{place}").readlink() if isinstance(place, int) else Path(place)
        return path.is_relative_to(self.root) and path.name not in ("lock", "index.lock")

    def _synced(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_dir():
            self._sync_folder(path)
        else:
            self._contents[os.fstat(descriptor).st_ino] = path.read_bytes()

    def _sync_folder(self, folder: Path) -> None:
        self._folders[folder] = {path.name: path.stat().st_ino for path in folder.iterdir()}
