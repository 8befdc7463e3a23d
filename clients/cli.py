"""The command f2l-site: its groups, and its end after an error."""

from __future__ import annotations

import os
import sys

import typer

from clients.commands import daemon, data, membership, network, predict
from clients.commands.console import err
from f2l_fed.core.private_files import private_files
from f2l_fed.errors import F2LError, sentence

_site = typer.Typer(
    name="f2l-site",
    help="Run a site beside its private data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_model = typer.Typer(
    help="Use the network that this site has now.", no_args_is_help=True, add_completion=False
)
for _command in (
    membership.init,
    membership.check,
    membership.renew,
    daemon.run,
    daemon.status,
    daemon.sent,
    network.features,
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
    try:
        with private_files():
            _site()
    except F2LError as error:
        if os.environ.get("F2L_DEBUG"):
            raise
        err.print(f"error: {error}", highlight=False, markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except (OSError, UnicodeEncodeError) as error:
        if os.environ.get("F2L_DEBUG"):
            raise
        err.print(f"error: {sentence(error)}", highlight=False, markup=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    site()
