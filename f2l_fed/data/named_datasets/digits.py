"""1,797 handwritten digits, 8x8 grey images of ten classes."""

from __future__ import annotations

from pathlib import Path

from f2l_fed.data.dataset import Dataset, as_dataset
from f2l_fed.data.file_formats import read_table
from f2l_fed.data.named_datasets.dataset_source import DatasetSource


def _parse(name: str, files: tuple[Path, ...]) -> Dataset:
    table = read_table(files[0])
    return as_dataset(name, table[:, :-1].reshape(-1, 8, 8) / 16, table[:, -1], where=str(files[0]))


DIGITS = DatasetSource(
    package="sklearn",
    folder="datasets/data",
    files=("digits.csv.gz",),
    parse=_parse,
    install="pip install 'f2l-fed[demo]'",
)
