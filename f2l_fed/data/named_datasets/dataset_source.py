"""The record under which a named dataset is registered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from f2l_fed.data.dataset import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSource:
    """The files of a named dataset and their reader.

    Args:
        files: Paths below ``folder``.
        parse: Turns those files, in that order, into a dataset.
        install: Command that brings them.
        package: Import name of the package that ``folder`` lies in; None for the file system.
        folder: Folder of the files, relative to the package or absolute.
    """

    files: tuple[str, ...]
    parse: Callable[[str, tuple[Path, ...]], Dataset]
    install: str
    package: str | None = None
    folder: str = ""

    def find(self) -> tuple[Path, ...]:
        """Finds the files without importing the package; empty where one is missing."""
        base = Path(self.folder)
        if self.package is not None:
            spec = find_spec(self.package)
            if spec is None or not spec.submodule_search_locations:
                return ()
            base = Path(spec.submodule_search_locations[0]) / base
        paths = tuple(base / file for file in self.files)
        return paths if all(path.is_file() for path in paths) else ()
