"""The registry of named datasets; another one takes a file with a `DatasetSource` and a line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from f2l_fed.core.lazy_registry import LazyRegistry

if TYPE_CHECKING:
    from f2l_fed.data.named_datasets.dataset_source import DatasetSource

DATASETS: Mapping[str, DatasetSource] = LazyRegistry(
    {
        "mnist5k": "f2l_fed.data.named_datasets.mnist5k:MNIST5K",
        "fashion-mnist": "f2l_fed.data.named_datasets.fashion_mnist:FASHION_MNIST",
        "digits": "f2l_fed.data.named_datasets.digits:DIGITS",
        "animal": "f2l_fed.data.named_datasets.animal:ANIMAL",
        "vowel": "f2l_fed.data.named_datasets.vowel:VOWEL",
    }
)
