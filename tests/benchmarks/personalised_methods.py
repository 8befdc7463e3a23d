"""The methods of the personalised benchmark: the baselines as published and with own epochs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from f2l_fed.evaluation.arm_names import label
from f2l_fed.evaluation.baselines.personalised.method import PersonalisedBaseline
from f2l_fed.evaluation.baselines.personalised.registry import PERSONALISED_BASELINES

EPOCHS = 5
"""Local epochs with a falling learning rate that serve a site's own network alone."""

FINISHED: Mapping[str, Mapping[str, Any]] = {
    "local_only": {},
    "fedper": {},
    "fedrep": {"lr": 0.3},
    "ditto": {},
    "fedala": {"lr": 0.3, "received": False},
    "pfedhn": {},
}
"""Baselines that are measured a second time, with own epochs, and what they want differently."""

METHODS: dict[str, PersonalisedBaseline] = {
    **PERSONALISED_BASELINES,
    **{
        f"{key}_epochs": replace(
            PERSONALISED_BASELINES[key],
            key=f"{key}_epochs",
            settings=replace(
                PERSONALISED_BASELINES[key].settings, **{"epochs": EPOCHS, "own_lr": 0.2, **other}
            ),
        )
        for key, other in FINISHED.items()
    },
}
"""All methods but our own, by key."""

Grid = Mapping[str, Sequence[Any]]

GRIDS: dict[str, Grid] = {
    "local_only": {"lr": (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)},
    "plain_fedavg": {"lr": (0.05, 0.1, 0.2, 0.3, 0.5, 0.8)},
    "fedavg_epochs": {"lr": (0.1, 0.3), "own_lr": (0.1, 0.2, 0.4)},
    "fedavg_accelerated": {"server_lr": (1.0, 1.5), "own_lr": (0.1, 0.2, 0.4)},
    "fedper": {"lr": (0.1, 0.2, 0.3), "received": (False, True)},
    "fedrep": {"lr": (0.1, 0.2, 0.3), "received": (False, True)},
    "ditto": {"lr": (0.1, 0.2, 0.3), "pull": (0.03, 0.3)},
    "fedala": {"lr": (0.1, 0.2, 0.3), "received": (False, True)},
    "pfedhn": {"server_steps": (1, 20, 100), "received": (False, True)},
    "local_only_epochs": {"lr": (0.1, 0.2, 0.3), "own_lr": (0.1, 0.2)},
    "fedper_epochs": {"lr": (0.1, 0.3, 0.5), "own_lr": (0.1, 0.2)},
    "fedrep_epochs": {"lr": (0.1, 0.3, 0.5), "own_lr": (0.1, 0.2)},
    "ditto_epochs": {"pull": (0.03, 0.3, 1.0), "own_lr": (0.1, 0.2)},
    "fedala_epochs": {"lr": (0.1, 0.3, 0.5), "own_lr": (0.1, 0.2)},
    "pfedhn_epochs": {"server_steps": (1, 20, 100), "own_lr": (0.1, 0.2)},
}
"""The six settings of each method that are tried; all else is as in its own settings."""


def name_of(method: str) -> str:
    """A method's name for people."""
    before = method.removesuffix("_epochs")
    finished = method not in PERSONALISED_BASELINES and before in FINISHED
    return f"{label(before)} + {EPOCHS}" if finished else label(method)


def tried(key: str) -> Iterator[PersonalisedBaseline]:
    """A method with each setting of its grid."""
    baseline, grid = METHODS[key], GRIDS[key]
    for values in product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        yield replace(baseline, settings=replace(baseline.settings, **chosen))
