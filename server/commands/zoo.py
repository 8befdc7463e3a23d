"""f2l-admin zoo: a zoo's folder, without a server."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from f2l_fed.errors import UsageError

app = typer.Typer(
    help="Looks after a weight zoo.", no_args_is_help=True, pretty_exceptions_enable=False
)

ZooFolder = Annotated[Path, typer.Argument(metavar="ZOO", help="The zoo's folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Prints JSON.")]


@app.command()
def stats(zoo: ZooFolder, as_json: AsJson = False) -> None:
    """How much there is in a zoo."""
    from f2l_fed.zoo import Zoo

    found = asdict(Zoo.open(zoo).stats())
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for name, value in found.items():
        print(f"{name:<12} {', '.join(value) if isinstance(value, tuple) else value}")


@app.command()
def verify(zoo: ZooFolder, as_json: AsJson = False) -> None:
    """Reads everything; ends with 1 and names file and row if anything is wrong."""
    from f2l_fed.zoo import Zoo

    faults = Zoo.open(zoo).verify()
    if as_json:
        print(json.dumps([asdict(fault) for fault in faults], indent=1))
    else:
        for fault in faults:
            row = "" if fault.row is None else f", row {fault.row}"
            print(f"{fault.file}{row}: {fault.what}")
        if not faults:
            print("nothing is wrong")
    raise typer.Exit(1 if faults else 0)


@app.command()
def reindex(zoo: ZooFolder) -> None:
    """Builds the index anew from the log."""
    from f2l_fed.zoo import Zoo

    opened = Zoo.open(zoo)
    opened.reindex()
    print(f"{opened.stats().records} records indexed")


@app.command()
def export(
    zoo: ZooFolder,
    out: Annotated[Path, typer.Argument(help="Folder for the .safetensors files.")],
    site: Annotated[str, typer.Option(help="Only this site's.")] = "",
    latest: Annotated[bool, typer.Option(help="Only each site's newest.")] = False,
    context: Annotated[bool, typer.Option(help="With the contexts, for an import.")] = False,
) -> None:
    """Writes one .safetensors file per network, with its names, shapes and metadata."""
    from f2l_fed.zoo import Zoo

    opened = Zoo.open(zoo)
    records = opened.snapshot().records(site=site or None, latest_per_site=latest)
    if not records:
        raise UsageError("nothing to export", where=str(zoo), got=f"site {site!r}" if site else "")
    files = opened.export(out, records, with_context=context)
    print(f"{len(files)} networks in {out}")


@app.command(name="import")
def import_(
    zoo: ZooFolder,
    file: Annotated[Path, typer.Argument(help="A .safetensors file with the zoo's tensors.")],
    site: Annotated[str, typer.Option(help="The site it is from.")],
    round: Annotated[int, typer.Option(help="The round it counts for.")],
) -> None:
    """Adds a network from a file that `export --context` wrote."""
    from f2l_fed.zoo import Zoo

    commit = Zoo.open(zoo).import_file(file, site=site, round=round)
    print(f"commit {commit.number}")


@app.command()
def forget(
    zoo: ZooFolder,
    site: Annotated[str, typer.Argument(help="The site to erase.")],
    yes: Annotated[bool, typer.Option("--yes", help="Does it.")] = False,
) -> None:
    """Erases all networks of a site; they can't be brought back."""
    from f2l_fed.zoo import Zoo

    if not yes:
        raise UsageError(
            "this erases all networks of the site for good",
            where=site,
            remedy="Say so with --yes.",
        )
    commit = Zoo.open(zoo).forget(site)
    print(f"{site} is erased, commit {commit.number}")
