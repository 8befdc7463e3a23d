"""Files and folders of data: what may be read, of which kind it is, and its parts."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from f2l_fed.errors import DataError

MOST_VALUES = 2**28
"""Largest number of values of all examples together; as float32 they take 1 GiB."""

MOST_BYTES = 2**32
"""Largest size of a text file without its compression, bytes."""

_JUNK = ("thumbs.db", "desktop.ini", "ehthumbs.db", "__macosx", "$recycle.bin", "lost+found")
_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
_KINDS = {
    ".npz": "npz",
    ".csv": "text",
    ".tsv": "text",
    ".tab": "text",
    ".txt": "text",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_SPECIAL = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def require_readable(path: Path, what: str = "the data") -> None:
    """Raises DataError unless a path is an ordinary file or folder that may be read.

    It never waits: a pipe, a socket or a device is not opened.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise DataError(f"{what} do not exist", where=str(path), remedy="Check the path.") from None
    except (OSError, ValueError) as error:
        raise DataError(
            f"{what} can't be read",
            where=str(path),
            got=getattr(error, "strerror", None) or str(error),
            remedy="Check the path.",
        ) from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise DataError(
            f"{what} can't be read",
            where=str(path),
            expected="a file or a folder",
            got=_SPECIAL.get(stat.S_IFMT(mode), "something else"),
            remedy="Copy the data into an ordinary file.",
        )
    if not os.access(path, os.R_OK | (os.X_OK if stat.S_ISDIR(mode) else 0)):
        raise DataError(
            f"{what} can't be read",
            where=str(path),
            got="Permission denied",
            remedy="Allow this account to read them.",
        )


def special_kind(path: Path) -> str:
    """The reason why a path is no file that may be read, in words; "" for one that is."""
    try:
        require_readable(path)
    except DataError as error:
        return error.got or "nothing there"
    return ""


def compression_of(path: Path) -> str | None:
    """Name of a file's compression by its last suffix, as pyarrow calls it; None for none."""
    return _COMPRESSIONS.get(path.suffix.lower())


def kind_of(path: Path) -> str:
    """The kind of a file by its suffix: "npz", "text" or "parquet"; "" for any other.

    >>> kind_of(Path("Daten.CSV")), kind_of(Path("part-0.csv.gz")), kind_of(Path("a.png"))
    ('text', 'text', '')
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSIONS:
        inner = suffixes[-2] if len(suffixes) > 1 else ""
        return "text" if _KINDS.get(inner) == "text" else ""
    return _KINDS.get(suffixes[-1], "") if suffixes else ""


def visible_entries(folder: Path) -> list[Path]:
    """The entries of a folder, sorted, without hidden ones and what file managers leave behind.

    Raises:
        DataError: If it can't be read.
    """
    try:
        return sorted(entry for entry in folder.iterdir() if not _is_junk(entry.name))
    except OSError as error:
        raise DataError(
            "the folder can't be read", where=str(folder), got=error.strerror or ""
        ) from error


def files_below(folder: Path, seen: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """All files below a folder, in sorted order; a link back to a folder above ends there."""
    facts = folder.stat()
    here = (facts.st_dev, facts.st_ino)
    if here in seen:
        return
    for entry in visible_entries(folder):
        if entry.is_dir():
            yield from files_below(entry, seen | {here})
        else:
            yield entry


def _is_junk(name: str) -> bool:
    return name.startswith((".", "~$")) or name.lower() in _JUNK
