"""Data for simulated federations: a user's own files, packaged real sets, and their division."""

from f2l_fed.data.dataset import Dataset, as_dataset, load_npz, save_npz
from f2l_fed.data.named_datasets import available, load
from f2l_fed.data.scenarios.partition import SCENARIOS, Partition, SiteData, partition
from f2l_fed.data.scenarios.site_plan import SplitConfig

__all__ = [
    "SCENARIOS",
    "Dataset",
    "Partition",
    "SiteData",
    "SplitConfig",
    "as_dataset",
    "available",
    "load",
    "load_npz",
    "partition",
    "save_npz",
]
