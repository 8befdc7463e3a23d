"""The run of a simulation: Flower's simulation runtime on Ray, with the real apps and zoo."""

from __future__ import annotations

import importlib
import json
import logging
import os
import platform
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from f2l_fed.config import FederationConfig
from f2l_fed.core.durable_files import write_atomically
from f2l_fed.data import Partition
from f2l_fed.errors import RoundError
from f2l_fed.evaluation.arm_names import PROBE, label
from f2l_fed.events import Listener
from server.cluster import connection
from server.cluster.baselines import evaluate_baselines
from server.cluster.held_out import evaluate_held_out
from server.cluster.personalised import evaluate_personalised
from server.federation.folder import Federation
from server.reporting.result import result_of
from server.rounds.state import RoundState
from server.server_app import run_rounds
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
            outcome["rounds"] = run_rounds(
                grid,
                federation.root,
                rounds=simulation.rounds,
                sites=len(divided.sites),
                stop=stop,
                listener=listener,
            )
            _require_success(outcome["rounds"])
            outcome["training"] = training_accuracy(federation, divided, outcome["rounds"])
            parts = held_out_sites(divided)
            held_out = evaluate_held_out(federation, parts, stop=stop)
            if simulation.baselines:
                held_out, outcome["baselines"] = evaluate_baselines(
                    federation.config, divided, simulation.rounds, parts, held_out, stop=stop
                )
                if divided.shared_labels:
                    outcome["personalised"] = evaluate_personalised(
                        federation.config, divided, simulation.rounds, stop=stop
                    )
            outcome["held_out"] = held_out
        except Exception as error:
            # The boundary of Flower's thread: the main thread raises the error again.
            outcome["error"] = error
        finally:
            ended.set()

    client_app: ClientApp = importlib.import_module(CLIENT_APP).app
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
        connection.disconnect()
        ended.wait(5)
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


def simulation_facts(simulation: Simulation, divided: Partition) -> dict[str, Any]:
    """Facts about data and machine for the result."""
    config = replace(simulation.config, shared_labels=divided.shared_labels)
    notes = [_about_contexts(config), _about_examples(config), *divided.notes]
    counts = {len(site.classes) for site in divided.sites}
    if len(counts) > 1:
        notes.append(f"The training sites have {min(counts)} to {max(counts)} classes.")
    if not divided.disjoint:
        notes.append(
            "The data have too few images for all training sites, so some of them share examples."
        )
    if divided.held_out["unseen"] is None:
        notes.append(
            "Every class of the data is at some training site, so there are no sites with unseen "
            "classes."
        )
    return {
        "seed": simulation.config.seed,
        "scenario": simulation.scenario,
        "data": list(simulation.data) or [name for name, _ in simulation.own_sites],
        "sites": len(divided.sites),
        "held_out_sites": {
            kind: 0 if sites is None else len(sites) for kind, sites in divided.held_out.items()
        },
        "disjoint": divided.disjoint,
        "data_notes": notes,
        "machine": {
            "cpus": os.cpu_count() or 0,
            "platform": platform.platform(),
            "torch": torch.__version__,
        },
    }


def _about_examples(config: FederationConfig) -> str:
    """The note on the examples that sites learn from."""
    share = config.split.validation_fraction
    limit = f"a site takes part with {config.split.minimum_examples} or more examples"
    if share:
        return f"Sites keep {share:.0%} of their examples aside to measure on, and {limit}."
    return f"Sites learn from all of their examples and measure on further ones, and {limit}."


def _about_contexts(config: FederationConfig) -> str:
    """The note on what a site computes before its first local step."""
    shots = config.probe.shots
    if config.has_body:
        features = (
            "the frozen backbone's features" if config.target.frozen else "the federation's body"
        )
        return (
            f"A site's context is a logistic head on {shots} examples per class, solved on "
            f"{features}; the steps of solving heads are not counted as local steps."
        )
    if config.has_shared_network:
        return (
            f"A site's context takes {config.probe.steps} gradient steps on {shots} times as many "
            "examples as there are classes, in its own label mix; they are not counted as local "
            "steps."
        )
    return (
        f"A site's context takes {config.probe.steps} gradient steps on {shots} examples per "
        f"class, which are not counted as local steps. The start '{label(PROBE)}' is the network "
        "after these steps."
    )


def _require_success(states: Sequence[RoundState]) -> None:
    last = states[-1]
    if last.step == "failed":
        raise RoundError(last.reason, where=f"round {last.number}")
