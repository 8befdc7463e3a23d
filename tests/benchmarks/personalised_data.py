"""The data of the personalised benchmark: the same sites and examples for every method."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from f2l_fed.data import Partition, SplitConfig, load_dataset, partition
from f2l_fed.data.dataset import Dataset
from f2l_fed.evaluation.baselines.baseline import TrainingSite
from f2l_fed.evaluation.baselines.personalised.method import PersonalisedWork
from f2l_fed.targets import build_target


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The setting that all methods share.

    Args:
        scenario: The scenario that divides the data; its labels are shared.
        data: Name of the data set, or a path.
        examples: Examples of a class; 0 for all that there are.
        sites: Training sites.
        rounds: Rounds.
        measured: Rounds after which sites are measured.
    """

    scenario: str
    data: str
    examples: int
    sites: int
    rounds: int
    measured: tuple[int, ...]


def drawn(setting: Setting, seed: int) -> Dataset:
    """The data set with the seed's examples of each class."""
    whole = load_dataset(setting.data)
    if not setting.examples:
        return whole
    rng = np.random.default_rng(1000 + seed)
    rows = np.concatenate(
        [
            rng.permutation(np.flatnonzero(whole.y == label))[: setting.examples]
            for label in range(whole.classes)
        ]
    )
    groups = None if whole.groups is None else whole.groups[rows]
    return replace(whole, x=whole.x[rows], y=whole.y[rows], groups=groups)


def divide(setting: Setting, seed: int) -> Partition:
    """The data of a seed's sites."""
    return partition(
        setting.scenario,
        [drawn(setting, seed)],
        sites=setting.sites,
        held_out=held_out_of(setting),
        seed=seed,
        config=SplitConfig(),
    )


def held_out_of(setting: Setting) -> int:
    """The number of sites that no training sees; there are few groups in natural data."""
    return 3 if setting.scenario == "natural" else 10


def target_name(divided: Partition) -> str:
    """The network: the smallest convolutional one for images, else a perceptron."""
    return "cnn-xs" if len(divided.input_shape) == 3 else "mlp"


def work_of(divided: Partition, setting: Setting, seed: int) -> PersonalisedWork:
    """The work of a seed's training sites."""
    name = target_name(divided)
    return PersonalisedWork(
        lineage=f"{name}/{seed}",
        network=build_target(name, divided.input_shape, divided.classes),
        sites=tuple(
            TrainingSite(
                name=site.name, x=torch.from_numpy(site.x_train), y=torch.from_numpy(site.y_train)
            )
            for site in divided.sites
        ),
        rounds=setting.rounds,
        measured=setting.measured,
    )


def tests_of(divided: Partition) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The test examples of every training site."""
    return [
        (torch.from_numpy(site.x_test), torch.from_numpy(site.y_test)) for site in divided.sites
    ]
