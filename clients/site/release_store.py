"""The store of the compact generator that a site has fetched, in its state folder.

::

    release-ID-SHA256.safetensors   the release's file, by its id and digest
    release-ID-SHA256.part          the part of one that has arrived so far
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from f2l_fed.core.durable_files import fsync, fsync_folder
from f2l_fed.errors import DataError

_NAME = re.compile(r"release-([A-Za-z0-9_-]{1,64})-([0-9a-f]{64})\.(safetensors|part)")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRelease:
    """A release's file in a state folder, whole or in part.

    Args:
        folder: The state folder.
        id: Of the release.
        digest: SHA-256 of the whole file.
    """

    folder: Path
    id: str
    digest: str

    @property
    def tag(self) -> str:
        """Its ``ETag`` at the server."""
        return f'"{self.id}-{self.digest}"'

    @property
    def path(self) -> Path:
        """The whole file."""
        return self.folder / f"release-{self.id}-{self.digest}.safetensors"

    @property
    def part(self) -> Path:
        """The part that has arrived."""
        return self.folder / f"release-{self.id}-{self.digest}.part"

    def is_sound(self, path: Path) -> bool:
        """Whether a file has this digest."""
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == self.digest

    def checked(self) -> Path:
        """The whole file, whose digest was checked.

        Raises:
            DataError: If it is damaged.
        """
        try:
            sound = self.is_sound(self.path)
        except OSError:
            sound = False
        if not sound:
            raise DataError(
                "the fetched release is damaged",
                where=str(self.path),
                remedy="Fetch it again: f2l-site release fetch.",
            )
        return self.path

    def finish(self) -> None:
        """Makes the part the whole file, durably, and removes every other one."""
        with self.part.open("rb") as file:
            fsync(file.fileno())
        self.part.replace(self.path)
        fsync_folder(self.folder)
        for path in self.folder.glob("release-*"):
            if _NAME.fullmatch(path.name) and path != self.path:
                path.unlink(missing_ok=True)


def kept_release(folder: Path) -> KeptRelease | None:
    """The release that a state folder has, not checked; None for none."""
    return _latest(folder, "safetensors")


def partial_release(folder: Path) -> KeptRelease | None:
    """The release of which a part has arrived last; None for none."""
    return _latest(folder, "part")


def _latest(folder: Path, ending: str) -> KeptRelease | None:
    found = [
        (path.stat().st_mtime_ns, match)
        for path in folder.glob(f"release-*.{ending}")
        if (match := _NAME.fullmatch(path.name))
    ]
    if not found:
        return None
    match = max(found, key=lambda one: one[0])[1]
    return KeptRelease(folder=folder, id=match[1], digest=match[2])
