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

from f2l_fed.core.command_line import INTERRUPTED, interruption_told, tell_interruption
from f2l_fed.errors import UsageError, visible
from f2l_fed.wire.enrolment import NAME_RULE, is_name
from server.cluster.fork_server import FORK_SERVER, OF_SITES

DataOption = Annotated[
    str,
    typer.Option(
        help="Use these datasets, separated by commas: names, or paths of .npz files, tables, "
        "folders of images. [default: mnist5k]",
        show_default=False,
    ),
]
SiteOption = Annotated[
    list[str] | None,
    typer.Option(
        "--site", metavar="NAME=PATH", help="Simulate a site with data of its own; repeated."
    ),
]
OutOption = Annotated[Path, typer.Option(help="Write results, zoo and releases to this folder.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a setting."),
]


@interruption_told("the simulation had not begun, so there are no results")
def simulate(
    config: Annotated[
        Path | None, typer.Argument(metavar="[FEDERATION.toml]", help="Configuration.")
    ] = None,
    data: DataOption = "",
    site: SiteOption = None,
    scenario: Annotated[
        str,
        typer.Option(
            help="Divide the data by few-shot, dirichlet, camera, natural, changing or "
            "changing-few-shot. [default: few-shot, natural with --site]",
            show_default=False,
        ),
    ] = "",
    sites: Annotated[int, typer.Option(help="Simulate this many sites.")] = 40,
    held_out: Annotated[
        int | None,
        typer.Option(
            help="Hold out this many sites of each kind. [default: 30, a fifth with --site]",
            show_default=False,
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Run this many rounds.")] = 3,
    seed: Annotated[int, typer.Option(help="Set the seed of all random draws.")] = 0,
    out: OutOption = Path("out"),
    set_: SetOption = None,
    baselines: Annotated[
        bool, typer.Option(help="Train and measure FedAvg, ProtoNet and others, too.")
    ] = False,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Show images of held-out sites in the report.")
    ] = False,
    credit: Annotated[
        str, typer.Option(metavar="TEXT", help="Name the makers of these images beside them.")
    ] = "",
    force: Annotated[bool, typer.Option(help="Replace results that are in --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print result.json.")] = False,
) -> None:
    """Run a whole federation on this machine: real apps, real data, real zoo."""
    from f2l_fed.config import load_simulation_config
    from server.reporting.console_progress import ProgressView
    from server.reporting.console_tables import result_table
    from server.reporting.report import write_report
    from server.simulation.setup import Simulation, prepare

    own_sites = tuple(map(_own_site, site or []))
    if own_sites and (data or scenario not in ("", "natural")):
        raise UsageError(
            "sites with data of their own are not divided again",
            where="--site",
            expected="neither --data nor another --scenario than natural",
        )
    settings = load_simulation_config(config, set_ or [])
    simulation = Simulation(
        data=() if own_sites else _specs(data or "mnist5k"),
        own_sites=own_sites,
        reading=settings.reading,
        backbone=settings.backbone,
        scenario=scenario or ("natural" if own_sites else "few-shot"),
        sites=sites,
        held_out=(max(len(own_sites) // 5, 1) if own_sites else 30)
        if held_out is None
        else held_out,
        rounds=rounds,
        out=out,
        config=replace(settings.federation, seed=seed),
        baselines=baselines,
    )
    console = Console(stderr=True)
    remarks: list[str] = []

    def say(text: str) -> None:
        console.print(visible(text), highlight=False, markup=False, soft_wrap=True)

    try:
        if not settings.federation.ray.on_ray:
            # It imports what sites need while the data are read.
            FORK_SERVER.start(*OF_SITES)
        with ProgressView(console, rounds) as progress:
            progress.stage("data are divided and sites are set up")
            federation, divided = prepare(
                simulation, force=force, remark=remarks.append, progress=progress.features
            )
            for remark in remarks:
                say(f"remark: {remark}")
            progress.stage("the processes of sites start")
            # Seconds of imports: invalid settings have been reported before.
            from server.simulation.run import run

            result = run(simulation, federation, divided, stop=threading.Event(), listener=progress)
    except KeyboardInterrupt:
        tell_interruption(f"nothing goes on; {out} has what is finished (zoo, releases, events)")
        sys.stdout.flush()
        sys.stderr.flush()
        # Flower leaves threads behind that Python would wait for without end.
        os._exit(INTERRUPTED)
    examples = {}
    if pictures:
        from server.simulation.example_pictures import example_pictures

        examples = example_pictures(federation, divided)
    write_report(result, out / "report.html", examples, credit)
    if as_json:
        print(json.dumps(result, indent=1))
        return
    table = Console()
    for part in result_table(result):
        table.print(part)
    print(f"result  {out / 'result.json'}\nreport  {out / 'report.html'}")


def _specs(data: str) -> tuple[str, ...]:
    """The datasets that an option names; a path may hold a comma itself."""
    if Path(data).exists():
        return (data,)
    specs = tuple(spec.strip() for spec in data.split(",") if spec.strip())
    if not specs:
        raise UsageError("no dataset is named", where="--data", expected="names or paths")
    return specs


def _own_site(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not separator or not path or not is_name(name):
        raise UsageError(
            "not a site with its data",
            where="--site",
            expected=f"NAME=PATH, the name of {NAME_RULE}",
            got=text,
        )
    return name, Path(path).expanduser()
