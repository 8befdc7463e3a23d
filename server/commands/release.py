"""f2l-admin release: the releases of a running f2l-server."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from f2l_fed.errors import UsageError, visible
from server.commands.connection import call
from server.commands.output import AsJson, print_rows

app = typer.Typer(
    help="List, promote and roll back releases.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.command(name="list")
def list_releases(
    context: typer.Context,
    as_json: AsJson = False,
) -> None:
    """List all releases, oldest first."""
    from server.control import client as control_client

    found = call(context, control_client.list_releases)
    print_rows(
        [asdict(release) for release in found],
        ("id", "state", "parent", "snapshot", "reasons"),
        as_json,
    )


@app.command()
def show(
    context: typer.Context,
    id: Annotated[str, typer.Argument(help="The release.")],
) -> None:
    """Show everything that is known of a release, as JSON."""
    from server.control import client as control_client

    release = call(context, lambda server: control_client.show_release(server, id))
    print(json.dumps(asdict(release), indent=1))


@app.command()
def promote(
    context: typer.Context,
    id: Annotated[str, typer.Argument(help="The release that sites shall get.")],
    yes: Annotated[bool, typer.Option("--yes", help="Confirm, for a rejected release.")] = False,
) -> None:
    """Promote a release, so that sites get it; show why the gate has rejected it, and ask."""
    from server.control import client as control_client

    chosen = call(context, lambda server: control_client.show_release(server, id))
    if chosen.state == "candidate" and chosen.reasons and not yes:
        _confirm(id, chosen.reasons)
    release = call(context, lambda server: control_client.promote(server, id))
    print(f"{release.id} is {release.state}")


def _confirm(id: str, reasons: Sequence[str]) -> None:
    """Ends the command unless somebody wants sites to get a release that the gate has rejected."""
    print(f"the gate has rejected {id}:", file=sys.stderr)
    for reason in reasons:
        print(f"  {visible(reason)}", file=sys.stderr)
    if not sys.stdin.isatty():
        raise UsageError("the promotion has not been confirmed", where=id, remedy="Add --yes.")
    if not typer.confirm("Promote it all the same?"):
        raise UsageError("nothing was promoted", where=id)


@app.command()
def rollback(
    context: typer.Context,
) -> None:
    """Go back to the release before the one that sites get."""
    from server.control import client as control_client

    release = call(context, control_client.rollback)
    print(f"{release.id} is {release.state}")
