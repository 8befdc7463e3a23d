"""The connection of f2l-admin's commands to a running f2l-server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer


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
    debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False,
) -> None:
    """Administer a federation."""
    if debug:
        os.environ["F2L_DEBUG"] = "1"
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

    return asyncio.run(ask())
