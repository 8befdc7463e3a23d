"""The data of the personalised benchmark: the same sites and examples for every method."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from f2l_fed.config import FederationConfig, load_config
from f2l_fed.data import Partition, load_dataset, partition
from f2l_fed.data.dataset import Dataset
from f2l_fed.evaluation.baselines.personalised.method import PersonalisedWork
from server.cluster.personalised import personalised_work
from tests.benchmarks.common import SEPARATE, SEPARATE_SPLIT


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
        config=SEPARATE_SPLIT,
    )


def held_out_of(setting: Setting) -> int:
    """The number of sites that no training sees; there are few groups in natural data."""
    return 3 if setting.scenario == "natural" else 10


def config_of(divided: Partition, seed: int) -> FederationConfig:
    """The configuration: the smallest network that suits the data, all else as by default."""
    name = "cnn-xs" if len(divided.input_shape) == 3 else "mlp"
    return replace(
        load_config(None, [*SEPARATE, f"target.name={name}", "target.adapt=head"]), seed=seed
    )


def work_of(divided: Partition, setting: Setting, seed: int) -> PersonalisedWork:
    """The work of a seed's training sites."""
    work = personalised_work(config_of(divided, seed), divided, setting.rounds)
    return replace(work, measured=setting.measured)
