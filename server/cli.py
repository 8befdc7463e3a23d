"""The commands f2l-admin and f2l-server: entry points, and the end of a command by an error."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from f2l_fed.core.private_files import private_files
from f2l_fed.errors import F2LError, sentence
from server.commands import connection, quarantine, release, round, site, target, zoo
from server.commands import server as server_commands
from server.commands.explain import explain
from server.commands.health import health
from server.commands.simulate import simulate

admin_app = typer.Typer(
    name="f2l-admin",
    help="Administer a federation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
admin_app.callback()(connection.options)
admin_app.command()(simulate)
admin_app.command()(explain)
admin_app.command()(health)
admin_app.add_typer(zoo.app, name="zoo")
admin_app.add_typer(quarantine.app, name="quarantine")
admin_app.add_typer(round.app, name="round")
admin_app.add_typer(release.app, name="release")
admin_app.add_typer(site.app, name="site")
admin_app.add_typer(target.app, name="target")

server_app = server_commands.app


@server_app.callback()
def _debug(
    debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False,
) -> None:
    if debug:
        os.environ["F2L_DEBUG"] = "1"


def admin() -> None:
    """Entry point of f2l-admin."""
    _run(admin_app)


def server() -> None:
    """Entry point of f2l-server."""
    _run(server_app)


def _run(app: typer.Typer) -> None:
    try:
        with private_files():
            app()
    except F2LError as error:
        if os.environ.get("F2L_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (OSError, UnicodeEncodeError) as error:
        if os.environ.get("F2L_DEBUG"):
            raise
        print(f"error: {sentence(error)}", file=sys.stderr)
        sys.exit(1)
