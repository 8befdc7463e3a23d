"""The commands f2l-admin and f2l-server: entry points and the way errors end them."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from f2l_fed.errors import F2LError
from server.commands import (
    connection,
    explain,
    forget,
    quarantine,
    releases,
    rounds,
    simulate,
    sites,
    zoo,
)
from server.commands import server as server_commands

_admin = typer.Typer(
    name="f2l-admin",
    help="Administers a federation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_admin.command()(simulate.simulate)
_admin.command()(explain.explain)
_admin.add_typer(zoo.app, name="zoo")
_admin.add_typer(quarantine.app, name="quarantine")
_admin.add_typer(rounds.rounds, name="round")
_admin.add_typer(releases.releases, name="release")
_admin.command()(connection.health)
sites.sites.command(name="forget")(forget.forget)
_admin.add_typer(sites.sites, name="site")


def _debug(
    debug: Annotated[bool, typer.Option(help="Shows where an error arose.")] = False,
) -> None:
    if debug:
        os.environ["F2L_DEBUG"] = "1"


_admin.callback()(connection.options)
server_commands.app.callback()(_debug)


def admin() -> None:
    """Entry point of f2l-admin."""
    _run(_admin)


def server() -> None:
    """Entry point of f2l-server."""
    _run(server_commands.app)


def _run(app: typer.Typer) -> None:
    try:
        app()
    except F2LError as error:
        if os.environ.get("F2L_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if os.environ.get("F2L_DEBUG"):
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}.", file=sys.stderr)
        sys.exit(1)
