"""The choice of the baselines' settings: a grid for each, on a seed apart from those of the tables.

Trainings are compared by the best that each of their arms can do at held-out sites, the mean of the
accuracies at no and at 20 steps, over both kinds of site. The strength of a solved head is chosen
by the accuracy at no steps, the learning rate of the local steps after that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import torch

from f2l_fed.config import FederationConfig
from f2l_fed.data import Partition
from f2l_fed.evaluation.baselines.baseline import Baseline, Settings, Start, curves
from f2l_fed.evaluation.baselines.registry import BASELINES
from server.cluster.baselines import work_of
from server.simulation.setup import held_out_sites
from tests.benchmarks.common import side_by_side

RATES = (0.02, 0.05, 0.1, 0.2)
"""Learning rates of the training sites."""
INNER = ((0.05, 1), (0.2, 1), (0.05, 5), (0.1, 5))
"""Learning rate and number of the steps inside an episode."""
LOCAL = (0.01, 0.03, 0.05, 0.1, 0.2)
"""Learning rates of a held-out site's steps."""
STRENGTHS = (0.0025, 0.01, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Strengths of a solved head, times the number of examples."""


def tune(
    config: FederationConfig, divided: Partition, rounds: int, names: Sequence[str]
) -> list[dict[str, Any]]:
    """All trainings that were tried, with the best that each arm does after them."""
    jobs = [
        (name, settings, config, divided, rounds)
        for name in names
        for settings in trainings(BASELINES[name])
    ]
    tried = [row for rows in side_by_side(tried_training, jobs) for row in rows]
    for row in tried:
        turned = "turned" if row["turns"] else "still"
        inner = f"inner {row['inner_lr']:g} x {row['inner_steps']}"
        print(
            f"{row['arm']:<18} {turned:<7} lr {row['lr']:<5g} {inner}"
            f"  strength {row['strength']:<6g} local lr {row['local_lr']:<5g}"
            f"  {100 * row['at_0']:.1f} / {100 * row['at_20']:.1f}"
        )
    return tried


def trainings(baseline: Baseline) -> Iterator[Settings]:
    """The settings of training that are tried."""
    inner = INNER if baseline.key == "per_fedavg" else ((0.05, 1),)
    for turns, lr, (inner_lr, inner_steps) in product((True, False), RATES, inner):
        yield replace(
            baseline.settings, lr=lr, inner_lr=inner_lr, inner_steps=inner_steps, turns=turns
        )


def tried_training(
    name: str, settings: Settings, config: FederationConfig, divided: Partition, rounds: int
) -> list[dict[str, Any]]:
    """One training: for each arm its best strength and local learning rate, and what they reach."""
    work = work_of(config, divided, rounds)
    learnt = BASELINES[name].train(work, settings)
    sites = [site for part in held_out_sites(divided).values() for site in part or ()]
    baseline, rows = BASELINES[name], []

    def starts(chosen: Settings) -> list[dict[str, Start]]:
        return [baseline.starts(work, chosen, learnt, site) for site in sites]

    def reached(
        arm: str, chosen: Settings, found: list[dict[str, Start]], steps: tuple[int, ...]
    ) -> list[float]:
        """Mean accuracy over sites."""
        own = replace(baseline, settings=chosen)
        measured = [
            curves(own, work, {arm: start[arm]}, site, steps)[arm]
            for start, site in zip(found, sites, strict=True)
        ]
        return torch.tensor(measured).mean(0).tolist()

    for arm in baseline.arms:
        solved = arm.endswith("logistic")
        by_strength = {}
        for strength in STRENGTHS if solved else ():
            chosen = replace(settings, strength=strength)
            by_strength[strength] = reached(arm, chosen, starts(chosen), (0,))[0]
        if solved:
            settings = replace(settings, strength=max(by_strength, key=by_strength.__getitem__))
        found = starts(settings)
        by_rate = {
            rate: reached(arm, replace(settings, local_lr={arm: rate}), found, (0, 20))
            for rate in LOCAL
        }
        rate = max(by_rate, key=lambda one: sum(by_rate[one]))
        rows.append(
            {
                "arm": arm,
                "lr": settings.lr,
                "turns": settings.turns,
                "inner_lr": settings.inner_lr,
                "inner_steps": settings.inner_steps,
                "strength": settings.strength,
                "local_lr": rate,
                "at_0": by_rate[rate][0],
                "at_20": by_rate[rate][1],
                "by_strength": by_strength,
                "by_local_lr": by_rate,
            }
        )
    return rows
