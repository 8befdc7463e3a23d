"""f2l-admin release: list, show, promote and roll back a federation's releases."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from server.commands.connection import AsJson, _call, _show

releases = typer.Typer(
    help="List, show and promote releases.", no_args_is_help=True, pretty_exceptions_enable=False
)


@releases.command(name="list")
def list_releases(
    way: typer.Context,
    as_json: AsJson = False,
) -> None:
    """List all releases, oldest first."""
    from server.control import client as control_client

    found = _call(way, control_client.list_releases)
    _show(
        [asdict(release) for release in found],
        ("id", "state", "parent", "snapshot", "reasons"),
        as_json,
    )


@releases.command()
def show(
    way: typer.Context,
    id: Annotated[str, typer.Argument(help="The release.")],
) -> None:
    """Show everything that is known of a release, as JSON."""
    from server.control import client as control_client

    release = _call(way, lambda to: control_client.show_release(to, id))
    print(json.dumps(asdict(release), indent=1))


@releases.command()
def promote(
    way: typer.Context,
    id: Annotated[str, typer.Argument(help="The release that sites shall get.")],
) -> None:
    """Make a release the one that sites get."""
    from server.control import client as control_client

    release = _call(way, lambda to: control_client.promote(to, id))
    print(f"{release.id} is {release.state}")


@releases.command()
def rollback(
    way: typer.Context,
) -> None:
    """Go back to the release before the one that sites get."""
    from server.control import client as control_client

    release = _call(way, control_client.rollback)
    print(f"{release.id} is {release.state}")
