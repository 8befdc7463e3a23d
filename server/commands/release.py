"""f2l-admin release: the releases of a running f2l-server."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

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
) -> None:
    """Promote a release, so that sites get it."""
    from server.control import client as control_client

    release = call(context, lambda server: control_client.promote(server, id))
    print(f"{release.id} is {release.state}")


@app.command()
def rollback(
    context: typer.Context,
) -> None:
    """Go back to the release before the one that sites get."""
    from server.control import client as control_client

    release = call(context, control_client.rollback)
    print(f"{release.id} is {release.state}")
