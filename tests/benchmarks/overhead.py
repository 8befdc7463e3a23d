"""The cost of a round against a plain Flower FedAvg round: same clients, data and local steps.

Both run on the same engine (``--engine local`` or ``ray``), each in a process of its own. The
FedAvg client opens the
same site, makes the same local steps from the global model, and measures loss and accuracy before
and after; the server averages. Ours also makes candidates, lets each site choose among them, gets
its probe with the answer, screens the update and writes it to disk. Retraining and gate have a
column of their own. The first round of each is left out: in it processes start.

With ``--deployed`` both run on a SuperLink and SuperNodes on loopback, without TLS, with the
daemons' launcher, which forks the process of a task.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from tests.benchmarks.common import SEPARATE, write_json

SETTINGS = (
    *SEPARATE,
    *("split.shots=20", "split.test_per_class=10", "split.validation_per_class=10"),
    *("probe.episodes=1", "probe.anchors=1", "candidates.training_samples=2"),
    *("gate.min_explained=-100", "gate.min_conditioning=-100"),
    *("gate.min_dispersion=0", "gate.max_dispersion=100", "gate.max_drift=1e9"),
)
fedavg_app = ClientApp()
_HERE = "tests.benchmarks.overhead"


def prepared(out: Path, sites: int, steps: int, data: str, target: str) -> Any:
    """A federation whose sites make so many steps in every round."""
    from f2l_fed.config import load_config
    from server.simulation.setup import Simulation, prepare

    more = (f"first.steps={steps}", f"later.steps={steps}", f"target.name={target}")
    simulation = Simulation(
        data=(data,),
        scenario="few-shot",
        sites=sites,
        held_out=2,
        rounds=1,
        out=out,
        config=load_config(None, (*SETTINGS, *more)),
    )
    return prepare(simulation, force=False)[0]


@fedavg_app.train()
def train(message: Message, context: Context) -> Message:
    """The part of a site in a FedAvg round."""
    from clients.client_app import site_path
    from clients.site.site import open_site
    from f2l_fed.core.random_streams import generator_for
    from f2l_fed.local_training.finetune import finetune, loss_and_accuracy
    from server.federation.folder import Federation

    torch.set_num_threads(1)
    path = site_path(context)
    site, federation = open_site(path), Federation.open(path.parents[2])
    target, recipe = federation.target, federation.config.later
    arrays = message.content["arrays"]
    start = torch.from_numpy(arrays["w"].numpy().copy())
    rng = generator_for(site.config.name, "fedavg")
    weights = finetune(target, start, site.train.x, site.train.y, recipe, rng)
    told = {}
    for name, model in (("before", start), ("after", weights)):
        loss, accuracy = loss_and_accuracy(target, model, site.validation.x, site.validation.y)
        told |= {f"loss_{name}": loss, f"accuracy_{name}": accuracy}
    content = RecordDict(
        {
            "arrays": ArrayRecord({"w": Array(weights.numpy())}),
            "metrics": MetricRecord({"num-examples": len(site.train.y), **told}),
        }
    )
    return Message(content=content, reply_to=message)


class Timed(FedAvg):
    """FedAvg that records the end of each round."""

    ends: list[float]

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        result = super().aggregate_train(server_round, replies)
        self.ends.append(time.monotonic())
        return result


def averaged(grid: Grid, root: Path, rounds: int, sites: int) -> list[float]:
    """Runs FedAvg from the anchor; the end of each round in seconds."""
    from f2l_fed.local_training.probe import anchor
    from server.federation.folder import Federation

    federation = Federation.open(root)
    start = anchor(federation.target, federation.config.lineage)
    strategy = Timed(fraction_evaluate=0.0, min_available_nodes=sites, min_train_nodes=sites)
    strategy.ends = []
    strategy.start(grid, ArrayRecord({"w": Array(start.numpy())}), num_rounds=rounds)
    return strategy.ends


def fedavg_sites() -> ClientApp:
    """The app of FedAvg's sites."""
    return fedavg_app


def fedavg(engine: Any, root: Path, rounds: int, sites: int) -> list[dict[str, float]]:
    """Seconds of every round but the first."""
    from server.simulation.runtime import with_sites
    from tests.benchmarks import overhead

    ends: list[float] = []

    def conduct(grid: Grid) -> None:
        ends.extend(averaged(grid, root, rounds, sites))

    # Of this module by its name: that of the program is another in each process.
    app, stop = overhead.fedavg_sites, threading.Event()
    with_sites(conduct, engine, root / "sites", sites, stop=stop, app=app)
    return [{"round": b - a, "retrain": 0.0} for a, b in itertools.pairwise(ends)]


def ours(engine: Any, root: Path, rounds: int, sites: int) -> list[dict[str, float]]:
    """Seconds of every round, and of its retraining."""
    from f2l_fed import events
    from server import server_app
    from server.simulation.runtime import with_sites

    marks: list[tuple[str, float]] = []

    def listen(event: str, _: dict[str, Any]) -> None:
        marks.append((event, time.monotonic()))

    def conduct(grid: Grid) -> None:
        server_app.run_rounds(grid, root, engine, rounds=rounds, sites=sites, listener=listen)

    with_sites(conduct, engine, root / "sites", sites, stop=threading.Event())
    return split_rounds(marks, events.RETRAINING_STARTED, events.ROUND_FINISHED)


fedavg_server_app = ServerApp()


@fedavg_server_app.main()
def conduct_fedavg(grid: Grid, context: Context) -> None:
    """FedAvg as a run on a deployment; writes the ends of its rounds."""
    root, sites = Path(str(context.run_config["workdir"])), int(context.run_config["sites"])
    ends = averaged(grid, root, int(context.run_config["rounds"]), sites)
    (root / "ends.json").write_text(json.dumps(ends))


def deployed(arm: str, root: Path, rounds: int, sites: int) -> list[dict[str, float]]:
    """`fedavg` or `ours` on real daemons."""
    import server
    from f2l_fed import events
    from tests.support.deployment import deployment

    app = root.parent / "app"
    app.mkdir()
    bundle = (Path(server.__path__[0]) / "bundle/pyproject.toml").read_text()
    if arm == "fedavg":
        bundle = bundle.replace("server.server_app:app", f"{_HERE}:fedavg_server_app")
        bundle = bundle.replace("clients.client_app:app", f"{_HERE}:fedavg_app")
    (app / "pyproject.toml").write_text(bundle)
    files = [root / "sites" / f"site-{number:03d}" / "site.toml" for number in range(sites)]
    commands = root.parent / "commands"
    commands.mkdir()
    line = [sys.executable, "-m", "tests.benchmarks.forked_tasks", arm, "superexec"]
    forking = commands / "flower-superexec"
    forking.write_text(f'#!/bin/sh\nexec {shlex.join(line)} "$@"\n')
    forking.chmod(0o700)
    quick = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    where = root.parent / "flower"
    with deployment(where, sites=files, app_dir=app, env=quick, commands=commands) as running:
        settings: dict[str, str | int] = {"workdir": str(root), "rounds": rounds, "sites": sites}
        result = running.run(settings, timeout_s=600)
    if result.status != "finished:completed":
        raise SystemExit(f"the run ended as {result.status}: {result.log_text[-2000:]}")
    if arm == "fedavg":
        ends = json.loads((root / "ends.json").read_text())
        return [{"round": b - a, "retrain": 0.0} for a, b in itertools.pairwise(ends)]
    lines = (root / "events.jsonl").read_text().splitlines()
    told = [(line["event"], line["time"]) for line in map(json.loads, lines)]
    return split_rounds(told, events.RETRAINING_STARTED, events.ROUND_FINISHED)


def split_rounds(marks: list[tuple[str, float]], began: str, ended: str) -> list[dict[str, float]]:
    """Seconds of all rounds but the first: to the retraining, and from there to the end."""
    starts, ends = ([when for event, when in marks if event == name] for name in (began, ended))
    return [
        {"round": start - a, "retrain": b - start}
        for a, b, start in zip(ends, ends[1:], starts[1:], strict=False)
    ]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--target", default="cnn-xs")
    parser.add_argument("--quick", action="store_true", help="8 sites, 3 rounds")
    parser.add_argument("--deployed", action="store_true", help="16 sites, 4 rounds, real daemons")
    parser.add_argument("--engine", choices=["local", "ray"], default="local")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--run", nargs=2, metavar=("ARM", "FOLDER"))
    asked = parser.parse_args()
    if asked.quick:
        asked.sites, asked.rounds = 8, 3
    if asked.deployed:
        asked.sites, asked.rounds = 16, 4
    if asked.run:
        arm, root = asked.run[0], Path(asked.run[1])
        from f2l_fed.config import RayConfig
        from server.cluster.engine import running_engine

        os.environ["F2L_SITES_ROOT"] = str((root / "sites").absolute())
        with running_engine(RayConfig(engine=asked.engine)) as engine:
            run = {"fedavg": fedavg, "ours": ours}[arm]
            print(json.dumps(run(engine, root, asked.rounds, asked.sites)))
        return
    rows = [measured(asked, steps) for steps in asked.steps]
    print("| " + " | ".join(rows[0]) + " |")
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    ran = {
        "deployed": asked.deployed,
        "engine": asked.engine,
        "sites": asked.sites,
        "rounds": asked.rounds,
    }
    write_json(asked.json, {**ran, "rows": rows})


def measured(asked: argparse.Namespace, steps: int) -> dict[str, Any]:
    """Both arms, one after the other."""
    found: dict[str, list[dict[str, float]]] = {}
    for arm in ("fedavg", "ours"):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "out"
            prepared(root, asked.sites, steps, asked.data, asked.target)
            if asked.deployed:
                found[arm] = deployed(arm, root, asked.rounds, asked.sites)
                continue
            size = ["--sites", str(asked.sites), "--rounds", str(asked.rounds)]
            size += ["--engine", asked.engine]
            command = [sys.executable, "-m", _HERE, "--run", arm, str(root)]
            done = subprocess.run([*command, *size], stdout=subprocess.PIPE, text=True, check=True)
            found[arm] = json.loads(done.stdout.splitlines()[-1])
    base, own = (statistics.median(row["round"] for row in found[arm]) for arm in found)
    return {
        "local_steps": steps,
        "sites": asked.sites,
        "fedavg_s": round(base, 2),
        "ours_s": round(own, 2),
        "ratio": round(own / base, 2),
        "retrain_and_gate_s": round(statistics.median(r["retrain"] for r in found["ours"]), 2),
    }


if __name__ == "__main__":
    main()
