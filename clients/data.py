"""A site's own files as labelled examples."""

from __future__ import annotations

from pathlib import Path

from f2l_fed.data import Dataset, load_npz
from f2l_fed.errors import DataError


def load_examples(path: Path) -> Dataset:
    """Reads labelled examples.

    Args:
        path: An ``.npz`` file with ``x`` and ``y``.

    Raises:
        DataError: If they can't be used as they are.
    """
    if path.suffix == ".npz":
        return load_npz(path)
    raise DataError("unknown kind of data", where=str(path), expected="an .npz file")
