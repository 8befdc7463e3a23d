"""The commands f2l-server and f2l-admin."""

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

from f2l_fed.config import load_config
from f2l_fed.errors import F2LError, UsageError

admin_app = typer.Typer(
    name="f2l-admin",
    help="Administers a federation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_err = Console(stderr=True)


@admin_app.callback()
def _admin() -> None:
    """Administers a federation."""


@admin_app.command()
def simulate(
    config: Annotated[
        Path | None, typer.Argument(metavar="[FEDERATION.toml]", help="Configuration.")
    ] = None,
    data: Annotated[
        str, typer.Option(help="Datasets by name or .npz path, separated by commas.")
    ] = "mnist5k",
    scenario: Annotated[
        str, typer.Option(help="few-shot, dirichlet, camera or natural.")
    ] = "few-shot",
    sites: Annotated[int, typer.Option(help="Sites that take part.")] = 40,
    held_out: Annotated[int, typer.Option(help="Sites kept out, of each kind.")] = 30,
    rounds: Annotated[int, typer.Option(help="Rounds.")] = 3,
    seed: Annotated[int, typer.Option(help="Decides every random draw.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for results, zoo and releases.")] = Path("out"),
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Overrides one setting."),
    ] = None,
    force: Annotated[bool, typer.Option(help="Replaces results that are in --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Prints result.json.")] = False,
) -> None:
    """Runs a whole federation on this machine: real apps, real data, real zoo."""
    from server import simulate as simulation_module
    from server.progress import ProgressView
    from server.report import write_report
    from server.table import result_table

    settings = replace(load_config(config, set_ or []), seed=seed)
    simulation = simulation_module.Simulation(
        data=tuple(spec.strip() for spec in data.split(",") if spec.strip()),
        scenario=scenario,
        sites=sites,
        held_out=held_out,
        rounds=rounds,
        out=out,
        config=settings,
    )
    if not simulation.data:
        raise UsageError("no data named", where="--data", expected="names or .npz paths")
    stop = threading.Event()
    try:
        with ProgressView(_err, rounds) as progress:
            progress.stage("data are divided and sites are set up")
            federation, divided = simulation_module.prepare(simulation, force=force)
            progress.stage("Ray and Flower start")
            result = simulation_module.run(
                simulation, federation, divided, stop=stop, listener=progress
            )
    except KeyboardInterrupt:
        _err.print(f"Interrupted. Partial results (zoo, releases, events) are in {out}.")
        sys.stdout.flush()
        sys.stderr.flush()
        # Flower leaves threads behind that Python would wait for, for ever.
        os._exit(130)
    write_report(result, out / "report.html")
    if as_json:
        print(json.dumps(result, indent=1))
        return
    console = Console()
    for renderable in result_table(result):
        console.print(renderable)
    console.print(
        f"\nresult  {out / 'result.json'}\nreport  {out / 'report.html'}", highlight=False
    )


def admin() -> None:
    """Entry point of f2l-admin."""
    _run(admin_app)


def _run(app: typer.Typer) -> None:
    try:
        app()
    except F2LError as error:
        if os.environ.get("F2L_DEBUG"):
            raise
        _err.print(f"error: {error}", highlight=False, markup=False)
        sys.exit(error.exit_code)
