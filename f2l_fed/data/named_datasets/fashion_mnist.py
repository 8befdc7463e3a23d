"""Fashion-MNIST: 70,000 garments, 28x28 grey images of ten classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from f2l_fed.data.dataset import Dataset, as_dataset
from f2l_fed.data.file_formats import read_idx
from f2l_fed.data.named_datasets.dataset_source import DatasetSource


def _parse(name: str, files: tuple[Path, ...]) -> Dataset:
    images = np.concatenate([read_idx(path) for path in files[0::2]])
    labels = np.concatenate([read_idx(path) for path in files[1::2]])
    return as_dataset(name, images, labels, where=str(files[0]))


FASHION_MNIST = DatasetSource(
    folder="/usr/share/datasets/fashion-mnist",
    files=(
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    ),
    parse=_parse,
    install="apt-get install dataset-fashion-mnist",
)
