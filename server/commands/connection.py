"""The connection of f2l-admin's commands to a running f2l-server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from f2l_fed.core.command_line import interruption_told
from f2l_fed.core.command_options import Debug, Version
from f2l_fed.core.wording import number_of
from f2l_fed.wire.enrolment import CERTIFICATE

_PERHAPS_TAKEN = "the server may have taken the request already and carries it out all the same"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOptions:
    """The server that a command asks, and the identity that asks.

    Args:
        server: host:port of its control service.
        certificates: Folder of the caller's identity.
        name: Of that identity.
    """

    server: str
    certificates: Path
    name: str


def options(
    context: typer.Context,
    server: Annotated[
        str, typer.Option(envvar="F2L_SERVER", help="Ask the control service at host:port.")
    ] = "127.0.0.1:8770",
    certificates: Annotated[
        Path, typer.Option(envvar="F2L_CERTIFICATES", help="Read the identity from this folder.")
    ] = Path("certificates"),
    name: Annotated[
        str, typer.Option(envvar="F2L_NAME", help="Use the identity of this name.")
    ] = "admin",
    version: Version = False,  # noqa: ARG001 - taken by their callbacks
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """Administer a federation."""
    context.obj = ConnectionOptions(server=server, certificates=certificates, name=name)


def connection_options(context: typer.Context) -> ConnectionOptions:
    """The options that were given before the command."""
    found: ConnectionOptions = context.obj
    return found


def call(context: typer.Context, question: Callable[[Any], Awaitable[Any]]) -> Any:
    """Connects to the server and asks it something.

    Args:
        context: Of the command.
        question: A function of `server.control.client`, of the connection alone.

    Raises:
        ControlError: If the server refuses, fails or can't be reached.
        ConfigError: If the identity can't be read.
    """
    # Loaded where it is needed, here and in the commands: each shows its help at once.
    from server.control import client as control_client

    to_server = connection_options(context)

    async def ask() -> Any:
        async with control_client.connect(
            to_server.server, to_server.certificates, to_server.name
        ) as connection:
            return await question(connection)

    _warn_of_end(to_server.certificates / to_server.name / CERTIFICATE)
    with interruption_told(_PERHAPS_TAKEN):
        return asyncio.run(ask())


def _warn_of_end(certificate: Path) -> None:
    """Tells on standard error that the caller's own certificate ends soon."""
    from server.pki.expiry import WARNING_DAYS, certificate_end

    end = certificate_end(certificate)
    days = (end - datetime.now(UTC)).days if end else WARNING_DAYS
    if 0 <= days < WARNING_DAYS:
        when = number_of(days, "day")
        text = f"warning: your certificate ends in {when}; ask for f2l-server identity renew"
        print(text, file=sys.stderr)
