"""f2l-admin quarantine: the submissions that admission quarantined, without a server."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from f2l_fed.core.wording import number_of
from f2l_fed.errors import UsageError, ZooError
from server.commands.output import AsJson

if TYPE_CHECKING:
    from f2l_fed.quarantine.entry import QuarantineEntry

app = typer.Typer(
    help="List, release and drop submissions in quarantine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The federation's folder.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="Id of the submission, or its first digits.")]


@app.command(name="list")
def list_(
    folder: Folder,
    site: Annotated[str, typer.Option(help="List only this site's.")] = "",
    as_json: AsJson = False,
) -> None:
    """List the submissions in quarantine, oldest first, and the reasons."""
    from server.federation.folder import Federation

    entries = Federation.open(folder).quarantine.list(site=site)
    if as_json:
        print(json.dumps([entry.to_json() for entry in entries], indent=1))
        return
    for entry in entries:
        # A table would leave the reason, the longest of all, a few columns at the edge.
        networks = number_of(len(entry.keys), "network")
        print(f"{entry.id}  {_time(entry)}, round {entry.round}, {entry.site}, {networks}")
        print(f"  {_reason(entry)}")
    if not entries:
        print("nothing is in quarantine")


@app.command()
def show(folder: Folder, id: Id, as_json: AsJson = False) -> None:
    """Show a submission: all findings with their figures, and its networks."""
    from server.federation.folder import Federation

    quarantine = Federation.open(folder).quarantine
    entry = quarantine.get(id)
    records = quarantine.records(entry)
    lengths = {
        record.key: {
            "network": float((record.weights.astype(float) ** 2).sum() ** 0.5),
            "probe": float((record.context.astype(float) ** 2).sum() ** 0.5),
        }
        for record in records
    }
    if as_json:
        print(json.dumps({**entry.to_json(), "lengths": lengths}, indent=1))
        return
    print(f"{entry.id}  round {entry.round}, {entry.site}, {_time(entry)}")
    for finding in entry.verdict.findings:
        print(f"  {finding.action:<11} {finding}")
    for record in records:
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in record.metrics.items())
        of = lengths[record.key]
        print(f"  {record.key}: length {of['network']:.4g}, of its probe {of['probe']:.4g}")
        print(f"    {numbers}")


@app.command()
def release(folder: Folder, id: Id) -> None:
    """Move a submission to the zoo, for the next retraining."""
    from server.federation.folder import Federation

    federation = Federation.open(folder)
    entry = federation.quarantine.get(id)
    commit = federation.quarantine.release(entry.id, federation.zoo)
    print(f"{entry.id} of {entry.site} is in the zoo, commit {commit.number}")


@app.command()
def drop(
    folder: Folder,
    id: Id,
    yes: Annotated[bool, typer.Option("--yes", help="Confirm.")] = False,
) -> None:
    """Remove a submission for good, even if its entry is damaged."""
    from server.federation.folder import Federation

    quarantine = Federation.open(folder).quarantine
    id = quarantine.full_id(id)
    try:
        which = f"of {quarantine.get(id).site}"
    except ZooError as error:
        which = f"that can't be read ({error.what})"
    if not yes:
        raise UsageError(
            f"this removes the submission {which} for good",
            where=id,
            remedy="Confirm with --yes.",
        )
    quarantine.drop(id)
    print(f"{id} {which} is dropped")


def _time(entry: QuarantineEntry) -> str:
    return datetime.fromtimestamp(entry.time_s, UTC).isoformat(" ", "seconds")


def _reason(entry: QuarantineEntry) -> str:
    more = len(entry.verdict.findings) - 1
    return entry.verdict.reason + (f" (and {more} more)" if more > 0 else "")
