"""Animal-MNIST: 28x28 grey images of ten animals."""

from __future__ import annotations

from pathlib import Path

from f2l_fed.data.dataset import Dataset, as_dataset
from f2l_fed.data.file_formats import read_array_pickle
from f2l_fed.data.named_datasets.dataset_source import DatasetSource


def _parse(name: str, files: tuple[Path, ...]) -> Dataset:
    images, labels = (read_array_pickle(path) for path in files)
    return as_dataset(name, images, labels, where=str(files[0]))


ANIMAL = DatasetSource(
    package="animal_mnist",
    folder="data/Animal_MNIST",
    files=("animal_data_version_3.gz", "animal_label_version_3.gz"),
    parse=_parse,
    install="pip install --no-deps animal-mnist==0.4",
)
