"""Data for simulated federations: users' files, packaged datasets, and their division."""

from typing import TYPE_CHECKING

from f2l_fed.core.lazy_exports import lazy_exports

__all__ = [
    "SCENARIOS",
    "Dataset",
    "Partition",
    "SiteData",
    "SplitConfig",
    "as_dataset",
    "available",
    "load_dataset",
    "load_npz",
    "partition",
    "save_npz",
]

if TYPE_CHECKING:
    from f2l_fed.data.dataset import Dataset, as_dataset, load_npz, save_npz
    from f2l_fed.data.named_datasets.loading import available, load_dataset
    from f2l_fed.data.scenarios.config import SplitConfig
    from f2l_fed.data.scenarios.partition import Partition, partition
    from f2l_fed.data.scenarios.registry import SCENARIOS
    from f2l_fed.data.scenarios.site_data import SiteData
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "f2l_fed.data.dataset": ["Dataset", "as_dataset", "load_npz", "save_npz"],
            "f2l_fed.data.named_datasets.loading": ["available", "load_dataset"],
            "f2l_fed.data.scenarios.config": ["SplitConfig"],
            "f2l_fed.data.scenarios.partition": ["Partition", "partition"],
            "f2l_fed.data.scenarios.site_data": ["SiteData"],
            "f2l_fed.data.scenarios.registry": ["SCENARIOS"],
        },
    )
