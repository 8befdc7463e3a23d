"""The own networks of a simulation's training sites where labels are shared, with baselines."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

import ray
import torch
from torch import Tensor

from f2l_fed.config import FederationConfig
from f2l_fed.data import Partition
from f2l_fed.evaluation.arm_names import THIS_FEDERATION
from f2l_fed.evaluation.baselines.baseline import TrainingSite
from f2l_fed.evaluation.baselines.personalised.accuracy import (
    PersonalisedAccuracy,
    personalised_accuracy,
)
from f2l_fed.evaluation.baselines.personalised.method import (
    PersonalisedWork,
    cost_of_baseline,
    measured_rounds,
)
from f2l_fed.evaluation.baselines.personalised.own_networks import own_networks
from f2l_fed.evaluation.baselines.personalised.registry import PERSONALISED_BASELINES
from f2l_fed.targets import build_target
from server.cluster.baselines import measured_side_by_side
from server.federation.folder import Federation


def personalised_work(
    config: FederationConfig, divided: Partition, rounds: int
) -> PersonalisedWork:
    """The work of a federation's training sites.

    Args:
        config: Its configuration.
        divided: Its data.
        rounds: Number of rounds.
    """
    return PersonalisedWork(
        lineage=config.lineage,
        network=build_target(config.target.name, divided.input_shape, divided.classes),
        sites=tuple(
            TrainingSite(
                name=site.name, x=torch.from_numpy(site.x_train), y=torch.from_numpy(site.y_train)
            )
            for site in divided.sites
        ),
        rounds=rounds,
        measured=measured_rounds(rounds),
    )


def own_examples_of(divided: Partition) -> list[tuple[Tensor, Tensor]]:
    """The test examples of every training site."""
    return [
        (torch.from_numpy(site.x_test), torch.from_numpy(site.y_test)) for site in divided.sites
    ]


def evaluate_personalised(
    federation: Federation,
    divided: Partition,
    rounds: int,
    *,
    baselines: bool,
    stop: threading.Event,
) -> dict[str, Any]:
    """The ``personalised`` part of a result: the accuracy at training sites by round.

    Args:
        federation: The federation after its rounds.
        divided: Its data, with shared labels.
        rounds: Number of rounds.
        baselines: Whether baselines are trained and measured, too.
        stop: Set from outside to stop the measurement.

    Returns:
        ``{"rounds": […], "methods": {key: {"weighted": […], "plain": […], "cost": {…}}}}``; the
        federation itself comes first and has no cost here.

    Raises:
        RoundError: If it was stopped.
    """
    methods = {THIS_FEDERATION: own_accuracies(federation, divided, rounds)}
    if baselines:
        known = ray.put((federation.config, divided, rounds))
        keys = tuple(PERSONALISED_BASELINES)
        found = measured_side_by_side(
            federation.config, measure_personalised, keys, known, stop=stop
        )
        methods |= dict(zip(keys, found, strict=True))
    return {"rounds": list(measured_rounds(rounds)), "methods": methods}


def own_accuracies(federation: Federation, divided: Partition, rounds: int) -> dict[str, Any]:
    """The accuracies that a federation's sites told of the networks they made in each round.

    A site makes its network in a round of the release before it, so this row is a round behind
    those of baselines. Sites whose answer was not taken are left out.

    Args:
        federation: The federation after its rounds.
        divided: Its data.
        rounds: Number of rounds.
    """
    snapshot = federation.zoo.snapshot()
    examples = {site.name: len(site.y_test) for site in divided.sites}
    accuracies = []
    for number in measured_rounds(rounds):
        told: dict[str, list[float]] = {}
        for record in snapshot.records(round=number):
            told.setdefault(record.site, []).append(record.metrics["accuracy_after"])
        accuracies.append(
            PersonalisedAccuracy(
                sites=tuple(fmean(values) for values in told.values()),
                examples=tuple(examples[site] for site in told),
            )
        )
    return _row(accuracies)


def measure_personalised(key: str, known: tuple[Any, ...]) -> dict[str, Any]:
    """Trains one baseline and measures its sites' networks; runs in a Ray worker.

    Args:
        key: The baseline.
        known: Configuration, data and rounds, as `evaluate_personalised` has them.
    """
    torch.set_num_threads(1)
    config, divided, rounds = known
    baseline, work = PERSONALISED_BASELINES[key], personalised_work(config, divided, rounds)
    tests = own_examples_of(divided)
    began = time.perf_counter()
    accuracies = [
        personalised_accuracy(work.network, networks, tests)
        for _, networks in own_networks(baseline, work)
    ]
    seconds = time.perf_counter() - began
    cost = {**asdict(cost_of_baseline(baseline, work)), "seconds": round(seconds, 2)}
    return {**_row(accuracies), "cost": cost}


def _row(accuracies: Sequence[PersonalisedAccuracy]) -> dict[str, Any]:
    return {
        "weighted": [round(one.weighted, 4) for one in accuracies],
        "plain": [round(one.plain, 4) for one in accuracies],
    }
