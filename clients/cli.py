"""The command f2l-site: its groups and entry point."""

from __future__ import annotations

import typer

from clients.commands import daemon, data, doctor, membership, network, predict
from f2l_fed.core.command_line import run_program
from f2l_fed.core.command_options import shared_options

_site = typer.Typer(
    name="f2l-site",
    help="Run a site beside its private data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_site.callback()(shared_options)
_model = typer.Typer(help="Use the network that this site has now.", no_args_is_help=True)
for _command in (
    membership.init,
    membership.check,
    membership.renew,
    daemon.run,
    daemon.status,
    daemon.sent,
    doctor.doctor,
    network.generate,
    predict.predict,
    predict.evaluate,
):
    _site.command()(_command)
_model.command("export")(network.export)
_site.add_typer(_model, name="model")
_site.add_typer(data.data, name="data")


def site() -> None:
    """Entry point of f2l-site."""
    run_program(_site)


if __name__ == "__main__":
    site()
