"""A whole federation on one machine: Flower's simulation runtime on Ray, real apps, real zoo."""

from __future__ import annotations

import importlib
import json
import logging
import os
import platform
import shutil
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import torch
from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from f2l_fed.config import FederationConfig
from f2l_fed.data import Partition, SiteData, load, partition, save_npz
from f2l_fed.errors import RoundError, UsageError
from f2l_fed.evaluate import HeldOutSite
from f2l_fed.events import Listener
from f2l_fed.files import write_atomically
from f2l_fed.zoo import Zoo
from server import cluster
from server.federation import FEDERATION_FILE, Federation
from server.held_out import evaluate_held_out
from server.lock import locked
from server.result import result_of
from server.rounds import RoundState
from server.server_app import conduct

CLIENT_APP = "clients.client_app"
_OURS = (
    "events.jsonl",
    "result.json",
    "report.html",
    "zoo",
    "quarantine",
    "screening.safetensors",
    "releases",
    "rounds",
    "sites",
    "spool",
    "training",
    # Last: a folder without it is not taken for ours.
    FEDERATION_FILE,
)
# What f2l-server init lays out, and no simulation.
_SERVED = ("certificates", "federation.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What is to be simulated.

    Args:
        data: Names of datasets or paths of ``.npz`` files, pooled.
        scenario: How they are divided.
        sites: Number of training sites.
        held_out: Number of held-out sites of each kind.
        rounds: Number of rounds.
        out: Folder of the federation and its results.
        config: Everything else; its seed decides every random draw.
    """

    data: tuple[str, ...]
    scenario: str
    sites: int
    held_out: int
    rounds: int
    out: Path
    config: FederationConfig


def prepare(simulation: Simulation, *, force: bool) -> tuple[Federation, Partition]:
    """Divides the data, gives every site its folder and lays out the federation.

    Raises:
        UsageError: If the folder holds results already and ``force`` is not set.
        DataError: If the data can't be used or don't suffice.
        TargetError: If the network does not suit the data.
    """
    if simulation.rounds < 1:
        raise UsageError("rounds is too small", expected=">= 1", got=str(simulation.rounds))
    ray_ = simulation.config.ray
    if ray_.task_cpus and not ray_.address:
        raise UsageError(
            "the sites of a simulation book all CPUs, so a task that books some would never run",
            where="ray.task_cpus",
            expected="0",
            got=f"{ray_.task_cpus:g}",
        )
    out = simulation.out
    _require_free(out, force=force)
    divided = partition(
        simulation.scenario,
        [load(spec) for spec in simulation.data],
        sites=simulation.sites,
        held_out=simulation.held_out,
        seed=simulation.config.seed,
        config=simulation.config.split,
    )
    config = replace(
        simulation.config,
        shared_labels=divided.shared_labels,
        target=replace(
            simulation.config.target, input_shape=divided.input_shape, classes=divided.classes
        ),
    )
    federation = Federation(out, config)
    federation.target  # noqa: B018 - a target that does not suit is told before files are replaced
    if isinstance(federation.zoo_place, str) and Zoo.exists(federation.zoo_place):
        raise UsageError(
            "there is a zoo in the object store already, and none is ever replaced",
            where=federation.zoo_place,
            remedy="Choose another prefix; nothing was touched.",
        )
    for name in _OURS:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    federation = Federation.create(out, config)
    for site in divided.sites:
        _write_site(out / "sites" / site.name, site, config)
    return federation, divided


def _require_free(out: Path, *, force: bool) -> None:
    """Raises UsageError unless nothing but our own results, if need be, will be replaced."""
    if not out.exists():
        return
    if not out.is_dir() or (any(out.iterdir()) and not (out / FEDERATION_FILE).exists()):
        raise UsageError(
            "this is neither an empty folder nor one of a federation",
            where=str(out),
            remedy="Choose another --out; nothing in it was touched.",
        )
    if any((out / name).exists() for name in _SERVED):
        raise UsageError(
            "this is the folder of a federation with a server of its own",
            where=str(out),
            remedy="Choose another --out; nothing in it was touched.",
        )
    if any(out.iterdir()) and not force:
        raise UsageError(
            "there are results in this folder already",
            where=str(out),
            remedy="Choose another --out, or replace them with --force.",
        )
    lock = out / "rounds" / "lock"
    if lock.exists():
        with locked(lock, wait=False, what="a process conducts rounds in this folder"):
            return


def run(
    simulation: Simulation,
    federation: Federation,
    divided: Partition,
    *,
    stop: threading.Event,
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Runs the rounds on Flower's simulation runtime and measures the held-out sites.

    Starts a Ray of its own and ends it. Writes ``result.json``.

    Args:
        simulation: What is simulated.
        federation: As prepared.
        divided: Its data.
        stop: Set from outside to give up.
        listener: Gets every event.

    Returns:
        The content of ``result.json``.

    Raises:
        RoundError: If a round failed, or the run was stopped.
    """
    began = time.monotonic()
    # Ray's workers take the environment of the process that starts it.
    os.environ["F2L_SITES_ROOT"] = str((federation.root / "sites").absolute())
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    cluster.connect(federation.config.ray)
    # Ray's own handler for SIGTERM aborts the process; ours ends it like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    outcome: dict[str, Any] = {}
    ended = threading.Event()
    app = ServerApp()

    @app.main()
    def main(grid: Grid, _: Context) -> None:
        try:
            outcome["rounds"] = conduct(
                grid,
                federation.root,
                rounds=simulation.rounds,
                sites=len(divided.sites),
                stop=stop,
                listener=listener,
            )
            _require_success(outcome["rounds"])
            outcome["held_out"] = evaluate_held_out(
                federation,
                held_out_sites(divided),
                stop=stop,
            )
        except Exception as error:
            # The boundary of Flower's thread: what happened is raised again in ours.
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
        ray.shutdown()
        ended.wait(5)
        raise
    if "error" in outcome:
        raise outcome["error"]
    if "held_out" not in outcome:
        raise RoundError("the simulation ended before its rounds were done")
    result = result_of(
        simulation_facts(simulation, divided),
        federation,
        outcome["rounds"],
        outcome["held_out"],
        wall_seconds=time.monotonic() - began,
    )
    write_atomically(federation.root / "result.json", json.dumps(result, indent=1) + "\n")
    return result


def simulation_facts(simulation: Simulation, divided: Partition) -> dict[str, Any]:
    """What the result says about the data and the machine."""
    probe = simulation.config.probe
    notes = [
        f"A site's context costs it {probe.steps} gradient steps of its own on {probe.shots} "
        "examples per class; they are not counted among the local steps. The start 'probe' is the "
        "network that these steps end at."
    ]
    if not divided.disjoint:
        notes.append(
            "The pool has too few images for all training sites, so some of them share examples."
        )
    if divided.held_out["unseen"] is None:
        notes.append(
            "The pool or the scenario leaves no classes that no training site has; "
            "the unseen part is empty."
        )
    return {
        "seed": simulation.config.seed,
        "scenario": simulation.scenario,
        "data": list(simulation.data),
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


def _require_success(states: Sequence[RoundState]) -> None:
    last = states[-1]
    if last.step == "failed":
        raise RoundError(last.reason, where=f"round {last.number}")


def held_out_sites(divided: Partition) -> dict[str, list[HeldOutSite] | None]:
    """The held-out sites of a partition by kind, as they are measured."""
    return {
        kind: None
        if sites is None
        else [
            HeldOutSite(
                name=site.name,
                train=(torch.from_numpy(site.x_train), torch.from_numpy(site.y_train)),
                test=(torch.from_numpy(site.x_test), torch.from_numpy(site.y_test)),
            )
            for site in sites
        ]
        for kind, sites in divided.held_out.items()
    }


def _write_site(folder: Path, site: SiteData, config: FederationConfig) -> None:
    folder.mkdir(parents=True)
    save_npz(folder / "train.npz", site.x_train, site.y_train)
    save_npz(folder / "validation.npz", site.x_test, site.y_test)
    write_atomically(
        folder / "site.toml",
        f'name = "{site.name}"\n'
        'data = "train.npz"\n'
        'validation = "validation.npz"\n\n'
        "[policy]\n"
        f'targets = "{config.target.name}"\n'
        "minimum_examples = 1\n"
        # Days pass quickly in a simulation.
        "rounds_per_day = 1000000\n"
        "answers_per_day = 1000000\n",
    )
