"""The run of a simulation: Flower's simulation runtime on Ray, with the real apps and zoo."""

from __future__ import annotations

import importlib
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from f2l_fed.core.durable_files import write_atomically
from f2l_fed.data import Partition
from f2l_fed.errors import RoundError
from f2l_fed.events import Listener
from server.cluster import connection
from server.cluster.baselines import evaluate_baselines
from server.cluster.held_out import evaluate_held_out
from server.cluster.personalised import evaluate_personalised
from server.federation.folder import Federation
from server.reporting.result import result_of
from server.rounds.messaging import Messenger
from server.rounds.state import RoundState
from server.server_app import run_rounds
from server.simulation.changes import changing_rounds, node_names, with_numbers
from server.simulation.facts import simulation_facts
from server.simulation.setup import Simulation, held_out_sites
from server.simulation.training_sites import training_accuracy

CLIENT_APP = "clients.client_app"

_KEPT_MEMORY = ("MALLOC_TOP_PAD_", str(32 << 20))
"""Setting of glibc's allocator: the sites' processes keep 32 MiB of freed memory. Without it every
step of a small network gives its memory back and faults it in again."""


def run(
    simulation: Simulation,
    federation: Federation,
    divided: Partition,
    *,
    stop: threading.Event,
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Runs the rounds on Flower's simulation runtime and measures the held-out sites.

    Starts Ray and shuts it down again. Writes ``result.json``.

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
    began = time.monotonic()
    # Ray's workers take the environment of the process that starts it.
    os.environ["F2L_SITES_ROOT"] = str((federation.root / "sites").absolute())
    os.environ.setdefault(*_KEPT_MEMORY)
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    connection.connect(federation.config.ray)
    try:
        return _connected_run(simulation, federation, divided, stop, listener, began)
    finally:
        connection.disconnect()


def _connected_run(
    simulation: Simulation,
    federation: Federation,
    divided: Partition,
    stop: threading.Event,
    listener: Listener | None,
    began: float,
) -> dict[str, Any]:
    """Runs a simulation on the Ray that this process is connected to."""
    # Ray's own handler for SIGTERM aborts the process; this one ends it like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    outcome: dict[str, Any] = {}
    ended = threading.Event()
    app = ServerApp()

    @app.main()
    def main(grid: Grid, _: Context) -> None:
        try:
            outcome["rounds"] = _rounds(grid, simulation, federation, divided, stop, listener)
            _require_success(outcome["rounds"])
            outcome["training"] = training_accuracy(federation, divided, outcome["rounds"])
            parts = held_out_sites(divided)
            held_out = evaluate_held_out(federation, parts, stop=stop)
            if simulation.baselines:
                held_out, outcome["baselines"] = evaluate_baselines(
                    federation.config,
                    divided,
                    simulation.rounds,
                    parts,
                    held_out,
                    frozen=federation.frozen,
                    stop=stop,
                )
                if divided.shared_labels:
                    outcome["personalised"] = evaluate_personalised(
                        federation.config,
                        divided,
                        simulation.rounds,
                        frozen=federation.frozen,
                        stop=stop,
                    )
            outcome["held_out"] = held_out
        except Exception as error:
            # The boundary of Flower's thread: the main thread raises the error again.
            outcome["error"] = error
        finally:
            ended.set()

    client_app: ClientApp = importlib.import_module(CLIENT_APP).app
    if divided.changes:
        client_app = with_numbers(client_app)
    try:
        run_simulation(
            server_app=app,
            client_app=client_app,
            num_supernodes=len(divided.sites),
            backend_config={"client_resources": {"num_cpus": 1}},
        )
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        stop.set()
        # Ray ends the whole process if a thread uses it after it was shut down.
        ended.wait(5)
        connection.disconnect()
        raise
    if "error" in outcome:
        raise outcome["error"]
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


def _rounds(
    grid: Grid,
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
