"""A site's own files as labelled examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from clients.data import image_folder, tables
from f2l_fed.data import Dataset, as_dataset, load_npz
from f2l_fed.data.array_checks import AnyArray, IntArray
from f2l_fed.errors import DataError

_READERS: dict[str, Callable[[Path], tuple[AnyArray, AnyArray]]] = {
    ".csv": tables.read_csv,
    ".parquet": tables.read_parquet,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExampleSource:
    """Examples with their labels as the file has them.

    Args:
        data: The checked examples; its labels are numbered by what occurs in this file alone.
        written: (n,) integers or strings, the labels.
        where: The file or folder, for errors.
    """

    data: Dataset
    written: AnyArray
    where: str

    @classmethod
    def read(cls, path: Path) -> ExampleSource:
        """Reads labelled examples.

        Args:
            path: An ``.npz`` file with ``x`` and ``y``; a ``.csv`` or ``.parquet`` file with one
                column of labels; or a folder of images with one sub-folder per class.

        Raises:
            DataError: If the examples can't be used as they are.
        """
        if not path.exists():
            raise DataError("the data do not exist", where=str(path), remedy="Check the path.")
        if path.suffix == ".npz":
            data = load_npz(path)
            with np.load(path, allow_pickle=False) as arrays:
                written = arrays["y"]
        else:
            if path.is_dir():
                x, written = image_folder.read_folder(path)
            elif path.suffix in _READERS:
                x, written = _READERS[path.suffix](path)
            else:
                raise DataError(
                    "unknown data format",
                    where=str(path),
                    expected="an .npz, .csv or .parquet file or a folder of image folders",
                )
            data = as_dataset(path.stem, x, written, where=str(path))
        return cls(data=data, written=_plain(written), where=str(path))

    @property
    def labels(self) -> tuple[str, ...]:
        """The distinct labels in the order of the outputs; empty where they are output numbers.

        Whole numbers from 0 are taken for output numbers even where some don't occur: at a site
        that lacks a class, the others must keep their meaning.
        """
        if self.written.dtype.kind == "i" and self.written.min() >= 0:
            return ()
        return tuple(_text(np.unique(self.written)))

    def numbered(self, labels: Sequence[str]) -> Dataset:
        """The examples with each label as its place in ``labels``, or as it is where empty.

        Raises:
            DataError: If a label is not among them.
        """
        if not labels:
            codes: IntArray = self.written.astype(np.int64)
            return replace(self.data, y=codes, classes=int(codes.max()) + 1)
        place = {label: number for number, label in enumerate(labels)}
        distinct, inverse = np.unique(self.written, return_inverse=True)
        names = _text(distinct)
        if unknown := [name for name in names if name not in place]:
            raise DataError(
                "unknown label",
                where=self.where,
                expected=f"one of {', '.join(labels)}",
                got=repr(unknown[0]),
                remedy="Correct the label, or name all labels in site.toml.",
            )
        codes = np.array([place[name] for name in names], np.int64)[inverse]
        return replace(self.data, y=codes, classes=len(labels))


def _plain(written: AnyArray) -> AnyArray:
    """Checked labels, whole numbers or text, as int64 or str."""
    if written.dtype.kind == "S":
        return np.char.decode(written, "utf-8", "replace")
    return written if written.dtype.kind == "U" else written.astype(np.int64)


def _text(values: AnyArray) -> list[str]:
    return [str(value) for value in values.tolist()]
