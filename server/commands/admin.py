"""f2l-admin: all of its commands."""

from __future__ import annotations

import typer

from server.commands import connection, quarantine, release, round, site, target, zoo
from server.commands.doctor import doctor
from server.commands.explain import explain
from server.commands.health import health
from server.commands.simulate import simulate

app = typer.Typer(
    name="f2l-admin",
    help="Administer a federation.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.callback()(connection.options)
app.command()(simulate)
app.command()(explain)
app.command()(health)
app.command()(doctor)
app.add_typer(zoo.app, name="zoo")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(round.app, name="round")
app.add_typer(release.app, name="release")
app.add_typer(site.app, name="site")
app.add_typer(target.app, name="target")
