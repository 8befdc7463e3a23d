"""f2l-site: all of its commands."""

from __future__ import annotations

import typer

from clients.commands import daemon, data, doctor, membership, network, predict, release
from f2l_fed.core.command_options import shared_options

app = typer.Typer(
    name="f2l-site",
    help="Run a site beside its private data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.callback()(shared_options)
_model = typer.Typer(help="Use the network that this site has now.", no_args_is_help=True)
for _command in (
    membership.init,
    membership.check,
    membership.renew,
    daemon.run,
    daemon.status,
    daemon.sent,
    doctor.doctor,
    network.features,
    network.generate,
    predict.predict,
    predict.evaluate,
):
    app.command()(_command)
_model.command("export")(network.export)
app.add_typer(_model, name="model")
app.add_typer(data.data, name="data")
app.add_typer(release.app, name="release")
