"""f2l-admin quarantine: what admission put aside in a federation's folder, without a server."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from f2l_fed.errors import UsageError, ZooError

if TYPE_CHECKING:
    from f2l_fed.quarantine.entry import QuarantineEntry

app = typer.Typer(
    help="Looks after what admission put aside.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The federation's folder.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="As listed; the first digits will do.")]
AsJson = Annotated[bool, typer.Option("--json", help="Prints JSON.")]


@app.command(name="list")
def list_(
    folder: Folder,
    site: Annotated[str, typer.Option(help="Only this site's.")] = "",
    as_json: AsJson = False,
) -> None:
    """What is held, oldest first, and why."""
    from server.federation.folder import Federation

    found = Federation.open(folder).quarantine.list(site=site)
    if as_json:
        print(json.dumps([held.to_json() for held in found], indent=1))
        return
    for held in found:
        # A table would leave the reason, the longest of all, a few columns at the edge.
        networks = f"{len(held.keys)} networks" if len(held.keys) > 1 else "1 network"
        print(f"{held.id}  {_time(held)}, round {held.round}, {held.site}, {networks}")
        print(f"  {_reason(held)}")
    if not found:
        print("nothing is in quarantine")


@app.command()
def show(folder: Folder, id: Id, as_json: AsJson = False) -> None:
    """One submission: everything that speaks against it, with figures, and its networks."""
    from server.federation.folder import Federation

    quarantine = Federation.open(folder).quarantine
    held = quarantine.get(id)
    records = quarantine.records(held)
    lengths = {
        record.key: {
            "network": float((record.weights.astype(float) ** 2).sum() ** 0.5),
            "probe": float((record.context.astype(float) ** 2).sum() ** 0.5),
        }
        for record in records
    }
    if as_json:
        print(json.dumps({**held.to_json(), "lengths": lengths}, indent=1))
        return
    print(f"{held.id}  round {held.round}, {held.site}, {_time(held)}")
    for finding in held.verdict.findings:
        print(f"  {finding.action:<11} {finding}")
    for record in records:
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in record.metrics.items())
        of = lengths[record.key]
        print(f"  {record.key}: length {of['network']:.4g}, of its probe {of['probe']:.4g}")
        print(f"    {numbers}")


@app.command()
def release(folder: Folder, id: Id) -> None:
    """Moves a submission to the zoo; the next retraining uses it."""
    from server.federation.folder import Federation

    federation = Federation.open(folder)
    held = federation.quarantine.get(id)
    commit = federation.quarantine.release(held.id, federation.zoo)
    print(f"{held.id} of {held.site} is in the zoo, commit {commit.number}")


@app.command()
def drop(
    folder: Folder,
    id: Id,
    yes: Annotated[bool, typer.Option("--yes", help="Does it.")] = False,
) -> None:
    """Removes a submission for good, also one whose entry is damaged."""
    from server.federation.folder import Federation

    quarantine = Federation.open(folder).quarantine
    id = quarantine.full_id(id)
    try:
        whose = f"of {quarantine.get(id).site}"
    except ZooError as error:
        whose = f"that can't be read ({error.what})"
    if not yes:
        raise UsageError(
            f"this removes the submission {whose} for good",
            where=id,
            remedy="Say so with --yes.",
        )
    quarantine.drop(id)
    print(f"{id} {whose} is dropped")


def _time(held: QuarantineEntry) -> str:
    return datetime.fromtimestamp(held.time_s, UTC).isoformat(" ", "seconds")


def _reason(held: QuarantineEntry) -> str:
    more = len(held.verdict.findings) - 1
    return held.verdict.reason + (f" (and {more} more)" if more > 0 else "")
