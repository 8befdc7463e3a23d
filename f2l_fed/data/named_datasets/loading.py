"""The loading of named datasets, with a cache of what was parsed."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
from pathlib import Path

from f2l_fed.core.random_streams import stream
from f2l_fed.data.dataset import Dataset, first_occurrences, load_npz, save_npz
from f2l_fed.data.named_datasets.dataset_source import DatasetSource
from f2l_fed.data.named_datasets.registry import DATASETS
from f2l_fed.errors import DataError

__all__ = ["available", "load_dataset"]

_CACHE_FORMAT = 1


def available() -> list[str]:
    """Lists the named datasets that can be loaded here, without loading any."""
    return [name for name, source in DATASETS.items() if source.find()]


def load_dataset(spec: str) -> Dataset:
    """Loads a named dataset or a user's own file.

    Named data come without exact duplicates and in a fixed shuffled order, and are kept in
    parsed form in ``$F2L_CACHE`` (``~/.cache/f2l-fed`` where that is unset, nowhere for an account
    without a home).

    Args:
        spec: A name from ``DATASETS`` or a path that ends in ``.npz``.

    Raises:
        DataError: If there is no such name, its package is not installed, or a file is bad.
    """
    if spec.endswith(".npz"):
        return load_npz(Path(spec))
    if spec not in DATASETS:
        near = difflib.get_close_matches(spec, DATASETS, n=1)
        raise DataError(
            f"unknown dataset {spec!r}",
            expected=f"one of {', '.join(DATASETS)}, or the path of a file or folder",
            remedy=f"Did you mean {near[0]!r}?" if near else "Choose one of these names.",
        )
    source = DATASETS[spec]
    files = source.find()
    if not files:
        raise DataError(
            f"the dataset {spec!r} is not installed here",
            remedy=f"Install it with: {source.install}",
        )
    return _cached(spec, source, files)


def _cached(name: str, source: DatasetSource, files: tuple[Path, ...]) -> Dataset:
    # Another version of the package, in all likelihood, has files of other sizes.
    version = [_CACHE_FORMAT, *((path.name, path.stat().st_size) for path in files)]
    digest = hashlib.sha256(json.dumps(version).encode()).hexdigest()[:16]
    folder = _cache_folder()
    if folder is None:
        return _tidy(source.parse(name, files))
    cache = folder / digest / f"{name}.npz"
    try:
        return load_npz(cache)
    except DataError:
        dataset = _tidy(source.parse(name, files))
    # A cache that can't be written costs time at the next start and nothing else.
    with contextlib.suppress(OSError):
        save_npz(cache, dataset.x, dataset.y, dataset.groups)
    return dataset


def _cache_folder() -> Path | None:
    configured = os.environ.get("F2L_CACHE")
    if configured:
        return Path(configured)
    try:
        return Path.home() / ".cache" / "f2l-fed"
    except RuntimeError:
        # An account without a home folder, as in many containers. Other accounts could put a folder
        # of a known name among the temporary files first.
        return None


def _tidy(dataset: Dataset) -> Dataset:
    keep = stream(0, "order", dataset.name).permutation(first_occurrences(dataset.x))
    return Dataset(
        name=dataset.name,
        x=dataset.x[keep],
        y=dataset.y[keep],
        classes=dataset.classes,
        groups=None if dataset.groups is None else dataset.groups[keep],
    )
