"""f2l-admin site: the sites of a running f2l-server."""

from __future__ import annotations

from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from server.commands.connection import call
from server.commands.forget import forget
from server.commands.output import AsJson, print_rows

app = typer.Typer(
    help="Add, list and remove sites.", no_args_is_help=True, pretty_exceptions_enable=False
)


@app.command()
def add(
    context: typer.Context,
    site: Annotated[str, typer.Argument(help="Name of the site; used once.")],
    out: Annotated[
        Path | None, typer.Option(help="Write the kit to this file instead of NAME.kit.")
    ] = None,
    hours: Annotated[
        int,
        typer.Option(
            min=0, help="Let the kit expire after so many hours; 0 for the server's setting."
        ),
    ] = 0,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the key of a site that is registered.")
    ] = False,
    backbone: Annotated[
        Path | None,
        typer.Option(help="Put the file of the federation's backbone into the kit."),
    ] = None,
) -> None:
    """Make a kit: one file that lets a site register, once and for a limited time."""
    from f2l_fed.errors import UsageError
    from server.control import client as control_client

    path = out or Path(f"{site}.kit")
    if path.exists():
        raise UsageError(
            "the file exists already and is never overwritten",
            where=str(path),
            remedy="Name another file with --out.",
        )
    digest = _backbone_digest(backbone) if backbone else ""
    kit = call(
        context,
        lambda server: control_client.add_site(
            server, site, hours=hours, replace=replace, backbone=digest
        ),
    )
    from f2l_fed.core.durable_files import file_pieces, write_atomically
    from f2l_fed.wire.kit import Kit

    about = Kit.parse(kit, where="the server's answer")
    if about.backbone != digest:
        raise UsageError(
            "the server is older than this command and makes no kits with a backbone",
            remedy="Update it, or make the kit without --backbone.",
        )
    pieces = file_pieces(backbone) if backbone else ()
    write_atomically(path, chain((kit,), pieces), mode=0o600)
    print(f"{path} is the kit of {about.site}, valid once, until {about.expires}")
    print(f"fingerprint {about.short_fingerprint}: the site compares it when it unpacks the kit")
    print(f"or gives it there: f2l-site init {path} --fingerprint {about.fingerprint}")
    if backbone:
        print("The kit has the backbone's file; tell the site which code takes it, module:factory")
        print("or timm:NAME: only its operator can name code that runs there.")


@app.command()
def remove(
    context: typer.Context,
    site: Annotated[str, typer.Argument(help="Name of the site.")],
) -> None:
    """Remove a site for good and refuse its next request; keep its networks in the zoo."""
    from server.control import client as control_client

    removed = call(context, lambda server: control_client.remove_site(server, site))
    print(f"{removed.name} is {removed.state}; its networks: f2l-admin zoo forget ZOO {site}")


@app.command(name="list")
def list_sites(
    context: typer.Context,
    as_json: AsJson = False,
) -> None:
    """List the sites and their contributions."""
    from server.control import client as control_client

    found = [asdict(site) for site in call(context, control_client.list_sites)]
    columns: tuple[str, ...] = ("name", "state", "online", "accepted", "rejected", "last_round")
    rejected = any(site["last_rejection"] for site in found)
    columns += ("last_rejection", "ends") if rejected else ("ends",)
    print_rows(found, columns, as_json)


app.command()(forget)


def _backbone_digest(file: Path) -> str:
    """The digest of a backbone's file; raises DataError if it can't be read."""
    from f2l_fed.targets.backbone_file import BackboneFile

    return BackboneFile.read(file).part.digest
