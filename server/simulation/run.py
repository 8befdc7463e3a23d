"""The run of a simulation: the real apps and zoo, with sites in processes of this machine."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from flwr.serverapp import Grid

from f2l_fed.core.durable_files import write_atomically
from f2l_fed.data import Partition
from f2l_fed.errors import RoundError
from f2l_fed.events import Listener
from server.cluster.baselines import evaluate_baselines
from server.cluster.engine import Engine, running_engine
from server.cluster.fork_server import FORK_SERVER, OF_SITES
from server.cluster.held_out import evaluate_held_out
from server.cluster.personalised import evaluate_personalised
from server.federation.folder import Federation
from server.reporting.result import result_of
from server.rounds.messaging import Messenger
from server.rounds.state import RoundState
from server.server_app import run_rounds
from server.simulation.changes import changing_rounds, node_names
from server.simulation.facts import simulation_facts
from server.simulation.runtime import SITES_ROOT, with_sites
from server.simulation.setup import Simulation, held_out_sites
from server.simulation.training_sites import training_accuracy

_KEPT_MEMORY = ("MALLOC_TOP_PAD_", str(32 << 20))
"""See `server.cluster.fork_server`."""


def run(
    simulation: Simulation,
    federation: Federation,
    divided: Partition,
    *,
    stop: threading.Event,
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Runs the rounds with simulated sites and measures the held-out ones.

    Starts the processes, or Ray, and ends them again. Writes ``result.json``.

    Args:
        simulation: The simulation's description.
        federation: The federation from `server.simulation.setup.prepare`.
        divided: Its data, from the same function.
        stop: Set from outside to stop the run.
        listener: Called with every event.

    Returns:
        The content of ``result.json``.

    Raises:
        RoundError: If a round failed, or the run was stopped.
    """
    began, outcome = time.monotonic(), dict[str, Any]()
    sites = federation.root / "sites"
    if federation.config.ray.on_ray:
        # Ray's workers take the environment of the process that starts it.
        os.environ[SITES_ROOT] = str(sites.absolute())
        os.environ.setdefault(*_KEPT_MEMORY)
    else:
        FORK_SERVER.start(*OF_SITES)
    with running_engine(federation.config.ray) as engine:

        def conduct(grid: Grid) -> None:
            states = _rounds(grid, engine, simulation, federation, divided, stop, listener)
            outcome["rounds"] = states
            _require_success(states)
            outcome.update(_measured(engine, simulation, federation, divided, states, stop))

        with_sites(conduct, engine, sites, len(divided.sites), stop=stop)
    if "held_out" not in outcome:
        raise RoundError("the simulation ended before its rounds were finished")
    result = result_of(
        simulation_facts(simulation, divided),
        federation,
        outcome["rounds"],
        outcome["held_out"],
        training=outcome["training"],
        baselines=outcome.get("baselines", {}),
        personalised=outcome.get("personalised", {}),
        wall_seconds=time.monotonic() - began,
    )
    write_atomically(federation.root / "result.json", json.dumps(result, indent=1) + "\n")
    return result


def _measured(
    engine: Engine,
    simulation: Simulation,
    federation: Federation,
    divided: Partition,
    states: Sequence[RoundState],
    stop: threading.Event,
) -> dict[str, Any]:
    """The measured parts of a result."""
    parts = held_out_sites(divided)
    found: dict[str, Any] = {
        "training": training_accuracy(federation, divided, states),
        "held_out": evaluate_held_out(federation, parts, engine=engine, stop=stop),
    }
    known = federation.config, divided, simulation.rounds
    if simulation.baselines:
        found["held_out"], found["baselines"] = evaluate_baselines(
            *known, parts, found["held_out"], frozen=federation.frozen, engine=engine, stop=stop
        )
        if divided.shared_labels:
            found["personalised"] = evaluate_personalised(
                *known, frozen=federation.frozen, engine=engine, stop=stop
            )
    return found


def _rounds(
    grid: Grid,
    engine: Engine,
    simulation: Simulation,
    federation: Federation,
    divided: Partition,
    stop: threading.Event,
    listener: Listener | None,
) -> list[RoundState]:
    """Conducts the rounds of a simulation, with the changes between them where there are any."""

    def conduct(
        count: int, names: Callable[[], Mapping[int, str]] | None = None
    ) -> list[RoundState]:
        return run_rounds(
            grid,
            federation.root,
            engine,
            rounds=count,
            sites=len(divided.sites),
            stop=stop,
            listener=listener,
            names=names,
        )

    if not divided.changes:
        return conduct(simulation.rounds)
    messenger = Messenger(grid=grid, config=federation.config.round, stop=stop)
    return changing_rounds(
        federation,
        divided,
        simulation.rounds,
        node_names(grid, divided, messenger),
        federation.events(listener),
        partial(conduct, 1),
    )


def _require_success(states: Sequence[RoundState]) -> None:
    last = states[-1]
    if last.step == "failed":
        raise RoundError(last.reason, where=f"round {last.number}")
