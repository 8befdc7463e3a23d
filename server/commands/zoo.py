"""f2l-admin zoo: a zoo in a folder or an object store, without a server."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from f2l_fed.core.private_files import exported_files
from f2l_fed.core.terminal import console
from f2l_fed.core.wording import number_of
from f2l_fed.errors import UsageError, visible
from server.commands.forget import forget
from server.commands.output import AsJson
from server.commands.zoo_arguments import Releases, ZooPlace, opened_at, registry_of

if TYPE_CHECKING:
    import numpy as np

    from f2l_fed.zoo import Query, Record

app = typer.Typer(
    help="Maintain a weight zoo: in a folder, at s3://bucket/prefix, or in a federation's folder.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Site = Annotated[str, typer.Option(help="Take only this site's networks.")]
Round = Annotated[int | None, typer.Option(help="Take only this round's.")]
Parent = Annotated[str | None, typer.Option(help="Take only those that this release generated.")]
Fitted = Annotated[
    str, typer.Option("--release", help="Take only those that this release was fitted on.")
]
Metric = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME:LOW:HIGH", help="Take only those with this metric in this range."),
]
Latest = Annotated[bool, typer.Option(help="Take only each site's newest.")]

app.command()(forget)


@app.command()
def stats(zoo: ZooPlace, as_json: AsJson = False) -> None:
    """Count the records, sites and rounds of a zoo."""
    found = asdict(opened_at(zoo).stats())
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for name, value in found.items():
        print(visible(f"{name:<12} {', '.join(value) if isinstance(value, tuple) else value}"))


@app.command()
def verify(zoo: ZooPlace, as_json: AsJson = False) -> None:
    """Read everything; end with 1 and name file and row if anything is damaged."""
    faults = opened_at(zoo).verify()
    if as_json:
        print(json.dumps([asdict(fault) for fault in faults], indent=1))
    else:
        print("\n".join(visible(str(fault)) for fault in faults) or "nothing is wrong")
    raise typer.Exit(1 if faults else 0)


@app.command(name="list")
def list_(
    zoo: ZooPlace,
    site: Site = "",
    round: Round = None,
    parent: Parent = None,
    release: Fitted = "",
    metric: Metric = None,
    latest: Latest = False,
    quarantined: Annotated[bool, typer.Option(help="List only those in quarantine.")] = False,
    commit: Annotated[int | None, typer.Option(help="List the zoo as of this commit.")] = None,
    releases: Releases = None,
    as_json: AsJson = False,
) -> None:
    """List the networks, their sites and their metrics."""
    query = _query(site, round, parent, metric, latest)
    query = replace(query, status="quarantined" if quarantined else "accepted")
    if release:
        fitted = registry_of(zoo, releases).read(release)
        query, commit = replace(query, keys=fitted.records), commit or fitted.snapshot
    found = opened_at(zoo).snapshot(commit).select(query)
    if as_json:
        print(json.dumps([_plain(record) for record in found], indent=1))
        return
    columns = ("key", "site", "round", "parent", "commit", "metrics", "reason")
    shown = Table(*columns, box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for record in found:
        shown.add_row(*(Text(_cell(_plain(record)[name])) for name in columns))
    console().print(shown)


@app.command()
def reindex(zoo: ZooPlace) -> None:
    """Rebuild the index from the log."""
    opened = opened_at(zoo)
    opened.reindex()
    print(f"{number_of(opened.stats().records, 'record')} indexed")


@app.command()
def compact(zoo: ZooPlace, as_json: AsJson = False) -> None:
    """Merge small shards, remove the files of interrupted writers, rebuild the index."""
    removed = opened_at(zoo).compact()
    if as_json:
        print(json.dumps(asdict(removed)))
    else:
        files, size = number_of(removed.files, "file"), number_of(removed.size_bytes, "byte")
        print(f"{files} removed, {size}")


@app.command()
def copy(
    zoo: ZooPlace,
    to: Annotated[str, typer.Argument(metavar="TO", help="An empty place, or an earlier copy.")],
) -> None:
    """Copy a zoo, or bring a copy up to date: a backup, or a move into an object store."""
    commit = opened_at(zoo).copy_to(to)
    print(f"{to} has commit {commit.number}")


@app.command()
def export(
    zoo: ZooPlace,
    out: Annotated[Path, typer.Argument(help="Folder for the .safetensors files.")],
    site: Site = "",
    round: Round = None,
    parent: Parent = None,
    metric: Metric = None,
    latest: Latest = False,
    context: Annotated[bool, typer.Option(help="Add the contexts, for an import.")] = False,
) -> None:
    """Write one .safetensors file per network, with its names, shapes and metadata."""
    opened = opened_at(zoo)
    records = opened.snapshot().select(_query(site, round, parent, metric, latest))
    if not records:
        raise UsageError(
            "nothing to export", where=zoo, remedy="See what there is with f2l-admin zoo list."
        )
    with exported_files():
        files = opened.export(out, records, with_context=context)
    print(f"{number_of(len(files), 'network')} in {out}")


@app.command(name="import")
def import_(
    zoo: ZooPlace,
    file: Annotated[Path, typer.Argument(help=".safetensors, or a state_dict by torch.save.")],
    site: Annotated[str, typer.Option(help="Name the site that it is from.")],
    round: Annotated[
        int, typer.Option(min=0, max=99_999, help="Set the round that it counts for.")
    ],
    parent: Annotated[str, typer.Option(help="Name the release that generated it.")] = "",
    context: Annotated[
        Path | None,
        typer.Option(help="Read the site's context from this .npy file, if FILE has none."),
    ] = None,
) -> None:
    """Add a network from a file, such as one that `export --context` wrote."""
    opened = opened_at(zoo)
    before = opened.snapshot().commit
    commit = opened.import_file(
        file,
        site=site,
        round=round,
        parent=parent,
        context=None if context is None else _context(context),
    )
    print(f"commit {commit.number}" if commit.number > before else "the zoo has it already")


def _query(
    site: str, round: int | None, parent: str | None, metrics: Sequence[str] | None, latest: bool
) -> Query:
    from f2l_fed.zoo import Query

    return Query(
        site=site or None,
        round=round,
        parent=parent,
        metrics=dict(map(_range, metrics or ())),
        latest_per_site=latest,
    )


def _range(text: str) -> tuple[str, tuple[float, float]]:
    name, *bounds = text.rsplit(":", 2)
    try:
        low, high = (float(bound) for bound in bounds)
    except ValueError as error:
        raise UsageError(
            "not a range of a metric",
            where="--metric",
            expected="NAME:LOW:HIGH, such as accuracy_after:0.8:1",
            got=repr(text),
        ) from error
    return name, (low, high)


def _context(path: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    import numpy as np
    from numpy.lib.format import MAGIC_PREFIX

    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC_PREFIX)) != MAGIC_PREFIX:
                raise ValueError("not in .npy format")
        # Mapped: what the header claims is held against the file before anything is allocated.
        found: np.ndarray[Any, np.dtype[np.float32]] = np.load(path, "r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(
            "not a readable .npy file", where=str(path), got=str(error).split("\n")[0]
        ) from error
    return found


def _plain(record: Record) -> dict[str, Any]:
    return {**asdict(record), "metrics": dict(record.metrics)}


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return visible(" ".join(f"{name}={number:g}" for name, number in value.items()))
    return visible(str(value))
