"""f2l-admin simulate: a whole federation on one machine."""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from f2l_fed.errors import UsageError

DataOption = Annotated[
    str, typer.Option(help="Use these datasets: names or .npz paths, separated by commas.")
]
OutOption = Annotated[Path, typer.Option(help="Write results, zoo and releases to this folder.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a setting."),
]


def simulate(
    config: Annotated[
        Path | None, typer.Argument(metavar="[FEDERATION.toml]", help="Configuration.")
    ] = None,
    data: DataOption = "mnist5k",
    scenario: Annotated[
        str, typer.Option(help="Divide the data by few-shot, dirichlet, camera or natural.")
    ] = "few-shot",
    sites: Annotated[int, typer.Option(help="Simulate this many sites.")] = 40,
    held_out: Annotated[int, typer.Option(help="Hold out this many sites of each kind.")] = 30,
    rounds: Annotated[int, typer.Option(help="Run this many rounds.")] = 3,
    seed: Annotated[int, typer.Option(help="Set the seed of all random draws.")] = 0,
    out: OutOption = Path("out"),
    set_: SetOption = None,
    baselines: Annotated[
        bool, typer.Option(help="Train and measure FedAvg, ProtoNet and others, too.")
    ] = False,
    force: Annotated[bool, typer.Option(help="Replace results that are in --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print result.json.")] = False,
) -> None:
    """Run a whole federation on this machine: real apps, real data, real zoo."""
    from f2l_fed.config import load_config
    from server.reporting.console_progress import ProgressView
    from server.reporting.console_tables import result_table
    from server.reporting.report import write_report
    from server.simulation.setup import Simulation, prepare

    simulation = Simulation(
        data=tuple(spec.strip() for spec in data.split(",") if spec.strip()),
        scenario=scenario,
        sites=sites,
        held_out=held_out,
        rounds=rounds,
        out=out,
        config=replace(load_config(config, set_ or [], new=True), seed=seed),
        baselines=baselines,
    )
    if not simulation.data:
        raise UsageError("no dataset is named", where="--data", expected="names or .npz paths")
    console = Console(stderr=True)
    try:
        with ProgressView(console, rounds) as progress:
            progress.stage("data are divided and sites are set up")
            federation, divided = prepare(simulation, force=force)
            progress.stage("Ray and Flower start")
            # Seconds of imports: invalid settings have been reported before.
            from server.simulation.run import run

            result = run(simulation, federation, divided, stop=threading.Event(), listener=progress)
    except KeyboardInterrupt:
        print(
            f"Interrupted. Partial results (zoo, releases, events) are in {out}.", file=sys.stderr
        )
        sys.stdout.flush()
        sys.stderr.flush()
        # Flower leaves threads behind that Python would wait for without end.
        os._exit(130)
    write_report(result, out / "report.html")
    if as_json:
        print(json.dumps(result, indent=1))
        return
    table = Console()
    for part in result_table(result):
        table.print(part)
    print(f"result  {out / 'result.json'}\nreport  {out / 'report.html'}")
