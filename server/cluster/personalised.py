"""The baselines of a simulation with shared labels: the own networks of its training sites."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from f2l_fed.config import FederationConfig
from f2l_fed.data import Partition
from f2l_fed.evaluation.baselines.baseline import TrainingSite
from f2l_fed.evaluation.baselines.personalised.accuracy import personalised_accuracy
from f2l_fed.evaluation.baselines.personalised.method import (
    PersonalisedWork,
    cost_of_baseline,
    measured_rounds,
)
from f2l_fed.evaluation.baselines.personalised.own_networks import own_networks
from f2l_fed.evaluation.baselines.personalised.registry import PERSONALISED_BASELINES
from f2l_fed.targets.frozen_part import FrozenPart
from server.cluster.baselines import network_of
from server.cluster.engine import Engine


def personalised_work(
    config: FederationConfig, divided: Partition, rounds: int, frozen: FrozenPart | None = None
) -> PersonalisedWork:
    """The work of a federation's training sites.

    Args:
        config: Its configuration.
        divided: Its data.
        rounds: Number of rounds.
        frozen: The frozen part that has made the data; None for none.
    """
    return PersonalisedWork(
        lineage=config.lineage,
        network=network_of(config, divided, frozen),
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
    config: FederationConfig,
    divided: Partition,
    rounds: int,
    *,
    frozen: FrozenPart | None = None,
    engine: Engine,
    stop: threading.Event,
) -> dict[str, Any]:
    """The ``personalised`` part of a result: the accuracy at training sites by round.

    Args:
        config: The federation's configuration.
        divided: Its data, with shared labels.
        rounds: Number of rounds.
        frozen: The frozen part that has made the data; None for none.
        engine: Runs the jobs.
        stop: Set from outside to stop the measurement.

    Returns:
        ``{"rounds": […], "methods": {key: {"weighted": […], "plain": […], "cost": {…}}}}``.

    Raises:
        RoundError: If it was stopped.
    """
    known, keys = (config, divided, rounds, frozen), tuple(PERSONALISED_BASELINES)
    found = engine.gather(measure_personalised, known, each=keys, stop=stop)
    return {
        "rounds": list(measured_rounds(rounds)),
        "methods": dict(zip(keys, found, strict=True)),
    }


def measure_personalised(known: tuple[Any, ...], key: str) -> dict[str, Any]:
    """Trains one baseline and measures its sites' networks; runs in a process of its own.

    Args:
        known: Configuration, data, rounds and frozen part, as `evaluate_personalised` has them.
        key: The baseline.
    """
    torch.set_num_threads(1)
    config, divided, rounds, frozen = known
    baseline, work = PERSONALISED_BASELINES[key], personalised_work(config, divided, rounds, frozen)
    tests = own_examples_of(divided)
    began = time.perf_counter()
    accuracies = [
        personalised_accuracy(work.network, networks, tests)
        for _, networks in own_networks(baseline, work)
    ]
    seconds = time.perf_counter() - began
    return {
        "weighted": [round(one.weighted, 4) for one in accuracies],
        "plain": [round(one.plain, 4) for one in accuracies],
        "cost": {**asdict(cost_of_baseline(baseline, work)), "seconds": round(seconds, 2)},
    }
