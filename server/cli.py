"""The commands f2l-admin and f2l-server: their groups and entry points."""

from __future__ import annotations

import typer

from f2l_fed.core.command_line import run_program
from server.commands import connection, quarantine, release, round, site, zoo
from server.commands import server as server_commands
from server.commands.doctor import doctor
from server.commands.explain import explain
from server.commands.health import health
from server.commands.simulate import simulate

admin_app = typer.Typer(
    name="f2l-admin",
    help="Administer a federation.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
admin_app.callback()(connection.options)
admin_app.command()(simulate)
admin_app.command()(explain)
admin_app.command()(health)
admin_app.command()(doctor)
admin_app.add_typer(zoo.app, name="zoo")
admin_app.add_typer(quarantine.app, name="quarantine")
admin_app.add_typer(round.app, name="round")
admin_app.add_typer(release.app, name="release")
admin_app.add_typer(site.app, name="site")

server_app = server_commands.app


def admin() -> None:
    """Entry point of f2l-admin."""
    run_program(admin_app)


def server() -> None:
    """Entry point of f2l-server."""
    run_program(server_app)
