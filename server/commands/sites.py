"""TODO."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from server.commands.connection import AsJson, _call, _show

sites = typer.Typer(help="Sites.", no_args_is_help=True, pretty_exceptions_enable=False)


@sites.command()
def add(
    way: typer.Context,
    site: Annotated[str, typer.Argument(help="Name of the site; used once.")],
    out: Annotated[
        Path | None, typer.Option(help="File for the kit; NAME.kit if left out.")
    ] = None,
    hours: Annotated[
        int, typer.Option(min=0, help="How long the kit can be used; 0 for the server's setting.")
    ] = 0,
    replace: Annotated[
        bool, typer.Option("--replace", help="Also for a site that is registered, once more.")
    ] = False,
) -> None:
    """Makes a kit: one file that lets a site register, once and for a limited time."""
    from f2l_fed.errors import UsageError
    from server.control import client as control_client

    path = out or Path(f"{site}.kit")
    if path.exists():
        raise UsageError(
            "this is there already and is never overwritten",
            where=str(path),
            remedy="Name another file with --out.",
        )
    kit = _call(
        way,
        lambda to: control_client.add_site(to, site, hours=hours, replace=replace),
    )
    from f2l_fed.core.durable_files import write_atomically
    from f2l_fed.wire.enrolment import Kit

    write_atomically(path, kit.decode(), mode=0o600)
    about = Kit(**json.loads(kit))
    print(f"{path} is the kit of {site}, good once, until {about.expires}")
    print(f"fingerprint {about.short_fingerprint}: the site compares it when it unpacks the kit")


@sites.command()
def remove(
    way: typer.Context,
    site: Annotated[str, typer.Argument(help="Name of the site.")],
) -> None:
    """Takes a site out for good: its next request is refused. Its networks stay in the zoo."""
    from server.control import client as control_client

    removed = _call(way, lambda to: control_client.remove_site(to, site))
    print(f"{removed.name} is {removed.state}; its networks: f2l-admin zoo forget ZOO {site}")


@sites.command(name="list")
def list_sites(
    way: typer.Context,
    as_json: AsJson = False,
) -> None:
    """Sites and what they have contributed."""
    from server.control import client as control_client

    found = [asdict(site) for site in _call(way, control_client.list_sites)]
    columns = ("name", "state", "online", "accepted", "rejected", "last_round", "ends")
    _show(found, columns, as_json)
