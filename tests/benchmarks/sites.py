"""The server's cost of a site: memory and time with 10, 100 and 1,000 sites.

The server runs rounds in a process of its own, whose peak memory is measured; its heavy work runs
in Ray's processes, and the sites, real ClientApps with real data, in this one. Then the resulting
zoo is retrained once more in a fresh process, for its peak and time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import Any

from tests.benchmarks.common import SEPARATE, memory_mib, write_json

SIZES = (10, 100, 1000)
ROUNDS = 3
SETTINGS = (
    *SEPARATE,
    "target.name=mlp",
    *("split.shots=8", "split.held_out_shots=5"),
    *("split.test_per_class=4", "split.validation_per_class=4"),
    *("probe.episodes=1", "probe.steps=5", "first.steps=20", "later.steps=5"),
    *("flow.steps=100", "flow.width=32", "codec.common=16", "codec.rows=8"),
    *("candidates.training_samples=1", "round.timeout_s=120", "round.poll_s=0.005"),
    *("gate.min_explained=-100", "gate.min_conditioning=-100"),
    *("gate.min_dispersion=0", "gate.max_dispersion=100"),
)


def measured(sites: int) -> dict[str, Any]:
    """One federation of so many sites."""
    import torch

    from clients.client_app import app
    from f2l_fed.config import load_config
    from server.simulation.setup import Simulation, prepare
    from tests.support.apart import serve_sites

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        simulation = Simulation(
            data=("digits",),
            scenario="few-shot",
            sites=sites,
            held_out=2,
            rounds=ROUNDS,
            out=Path(folder) / "out",
            config=load_config(None, SETTINGS),
        )
        federation, _ = prepare(simulation, force=False)
        files = sorted((federation.root / "sites").glob("*/site.toml"))
        began = time.monotonic()
        with Listener(str(Path(folder) / "socket"), "AF_UNIX") as listener:
            server = start("--conduct", str(federation.root), listener.address, str(sites))
            connection = listener.accept()
            serve_sites(
                connection, app, {n: {"site": str(path)} for n, path in enumerate(files, 1)}
            )
        conducted = ended(server)
        wall = time.monotonic() - began
        retrained = ended(start("--retrain", str(federation.root)))
        parameters = federation.target.layout.size
    exchange = sum(conducted["exchange_s"])
    return {
        "sites": sites,
        "parameters": parameters,
        "wall_s": round(wall, 1),
        "exchange_s": round(exchange, 1),
        "retrain_s": round(sum(conducted["retrain_s"]), 1),
        "exchange_per_answer_ms": round(1e3 * exchange / (ROUNDS * sites), 1),
        "server_peak_mb": conducted["peak_mb"],
        "server_start_mb": conducted["start_mb"],
        "retraining_peak_mb": retrained["peak_mb"],
        "retraining_s": retrained["seconds"],
    }


def start(*arguments: str) -> subprocess.Popen[str]:
    """Starts this program in another role."""
    command = [sys.executable, "-m", "tests.benchmarks.sites", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The figures in the last line of its output."""
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"a process failed with {process.returncode}")
    figures: dict[str, Any] = json.loads(out.splitlines()[-1])
    return figures


def peak_mb() -> int:
    """Largest memory of this process so far."""
    return round(memory_mib("VmHWM"))


def conduct(root: Path, address: str, sites: int) -> None:
    """The server's process."""
    import threading

    from server.cluster.backend import EngineBackend
    from server.cluster.engine import running_engine
    from server.federation.folder import Federation
    from server.rounds.coordinator import Coordinator
    from server.rounds.messaging import Messenger
    from tests.support.apart import ApartGrid

    federation = Federation.open(root)
    started = peak_mb()
    with (
        Client(address, "AF_UNIX") as connection,
        running_engine(federation.config.ray) as engine,
    ):
        states = Coordinator(
            federation=federation,
            messenger=Messenger(
                grid=ApartGrid(connection, sites),
                config=federation.config.round,
                stop=threading.Event(),
            ),
            backend=EngineBackend(root=root, engine=engine),
            log=federation.events(),
        ).run(ROUNDS, sites)
    for state in states:
        if (state.step, len(state.accepted)) != ("done", sites):
            raise SystemExit(f"round {state.number}: {state.step}, {state.reason} {state.rejected}")
    print(
        json.dumps(
            {
                "start_mb": started,
                "peak_mb": peak_mb(),
                "exchange_s": [state.seconds["exchange"] for state in states],
                "retrain_s": [state.seconds["retrain"] for state in states],
            }
        )
    )


def retrain(root: Path) -> None:
    """One more retraining, alone in its process."""
    import torch

    from server.federation.folder import Federation
    from server.generator.retrain import retrain as fit

    torch.set_num_threads(1)
    commit = Federation.open(root).zoo.snapshot().commit
    began = time.monotonic()
    fit(root, "99999", commit)
    seconds = round(time.monotonic() - began, 2)
    print(json.dumps({"peak_mb": peak_mb(), "seconds": seconds}))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--quick", action="store_true", help="10 and 100 sites only")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--conduct", nargs=3, metavar=("FOLDER", "SOCKET", "SITES"))
    parser.add_argument("--retrain", type=Path)
    asked = parser.parse_args()
    if asked.conduct:
        conduct(Path(asked.conduct[0]), asked.conduct[1], int(asked.conduct[2]))
    elif asked.retrain:
        retrain(asked.retrain)
    else:
        rows = [measured(sites) for sites in (asked.sizes[:2] if asked.quick else asked.sizes)]
        print("| " + " | ".join(rows[0]) + " |")
        for row in rows:
            print("| " + " | ".join(str(value) for value in row.values()) + " |")
        write_json(asked.json, {"rounds": ROUNDS, "sizes": rows})


if __name__ == "__main__":
    main()
