"""The baselines of a simulation: trained on the same sites and rounds, measured beside the arms."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from f2l_fed.config import FederationConfig
from f2l_fed.data import Partition
from f2l_fed.evaluation.arms import HeldOutSite
from f2l_fed.evaluation.baselines.baseline import CommonWork, TrainingSite, curves
from f2l_fed.evaluation.baselines.registry import BASELINES
from f2l_fed.evaluation.confidence import Predictions, predictions, summarise_confidence
from f2l_fed.evaluation.summary import summarise
from f2l_fed.targets import Target, build_target
from f2l_fed.targets.body import Body
from f2l_fed.targets.frozen_part import FrozenPart
from server.cluster.engine import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineMeasurement:
    """The measurement of one baseline.

    Args:
        curves: Test accuracy of its arms after each number of local steps, by kind and site.
        confidence: Of its arms' starts, by kind and site.
        cost: Bytes up and down of a site in a round, its local steps in all rounds.
        seconds: Of the training of all sites in all rounds, in one thread.
    """

    curves: dict[str, list[dict[str, list[float]]]]
    confidence: dict[str, list[dict[str, Predictions]]]
    cost: dict[str, int]
    seconds: float


def network_of(
    config: FederationConfig, divided: Partition, frozen: FrozenPart | None = None
) -> Target:
    """The network that baselines train on the data of a federation, and on its frozen part."""
    return build_target(config.target.name, divided.input_shape, divided.classes, frozen)


def work_of(
    config: FederationConfig, divided: Partition, rounds: int, frozen: FrozenPart | None = None
) -> CommonWork:
    """The work of a federation's training sites.

    Args:
        config: Its configuration.
        divided: Its data.
        rounds: Number of rounds.
        frozen: The frozen part that has made the data; None for none.

    Raises:
        TargetError: If the network does anything after its last linear layer.
    """
    network = network_of(config, divided, frozen)
    return CommonWork(
        lineage=config.lineage,
        body=Body.of(network),
        sites=tuple(
            TrainingSite(
                name=site.name, x=torch.from_numpy(site.x_train), y=torch.from_numpy(site.y_train)
            )
            for site in divided.sites
        ),
        rounds=rounds,
        episodes=config.episodes,
        head=config.head,
        local=config.local,
        shared_labels=divided.shared_labels,
    )


def evaluate_baselines(
    config: FederationConfig,
    divided: Partition,
    rounds: int,
    parts: Mapping[str, Sequence[HeldOutSite] | None],
    held_out: Mapping[str, Any],
    *,
    frozen: FrozenPart | None = None,
    engine: Engine,
    stop: threading.Event,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ``held_out`` part of a result with the baselines' arms, and their costs.

    Args:
        config: The federation's configuration.
        divided: Its data.
        rounds: Number of rounds.
        parts: Held-out sites by kind; None for a kind without any.
        held_out: As measured without baselines.
        frozen: The frozen part that has made the data; None for none.
        engine: Runs the jobs.
        stop: Set from outside to stop the measurement.

    Raises:
        RoundError: If it was stopped.
        TargetError: If the network has no head that can be taken apart.
    """
    known = config, divided, rounds, frozen, parts
    found = engine.gather(measure_baseline, known, each=tuple(BASELINES), stop=stop)
    together = {kind: None if part is None else _copy(part) for kind, part in held_out.items()}
    for one in found:
        for kind, part in together.items():
            if part is not None:
                part["arms"] |= summarise(one.curves[kind])["arms"]
                part["confidence"] |= summarise_confidence(one.confidence[kind])
    costs = {
        key: {**one.cost, "seconds": round(one.seconds, 2)}
        for key, one in zip(BASELINES, found, strict=True)
    }
    return together, costs


def measure_baseline(known: tuple[Any, ...], key: str) -> BaselineMeasurement:
    """Trains and measures one baseline; runs in a process of its own.

    Args:
        known: Configuration, data, rounds, frozen part and held-out sites, as
            `evaluate_baselines` has them.
        key: The baseline.
    """
    torch.set_num_threads(1)
    config, divided, rounds, frozen, parts = known
    baseline, work = BASELINES[key], work_of(config, divided, rounds, frozen)
    began = time.perf_counter()
    learnt = baseline.train(work, baseline.settings)
    seconds = time.perf_counter() - began
    accuracies: dict[str, list[dict[str, list[float]]]] = {}
    confidences: dict[str, list[dict[str, Predictions]]] = {}
    for kind, sites in parts.items():
        for site in sites or ():
            starts = baseline.starts(work, baseline.settings, learnt, site)
            accuracies.setdefault(kind, []).append(curves(baseline, work, starts, site))
            confidences.setdefault(kind, []).append(
                {
                    arm: predictions(
                        work.body_of(site).network.logits(start.weights, site.test[0]), site.test[1]
                    )
                    for arm, start in starts.items()
                }
            )
    return BaselineMeasurement(
        curves=accuracies,
        confidence=confidences,
        cost=asdict(baseline.cost(work, baseline.settings)),
        seconds=seconds,
    )


def _copy(part: Mapping[str, Any]) -> dict[str, Any]:
    return {**part, "arms": {**part["arms"]}, "confidence": {**part["confidence"]}}
