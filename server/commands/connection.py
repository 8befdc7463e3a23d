"""f2l-admin round, release and site: commands that a running f2l-server carries out."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

AsJson = Annotated[bool, typer.Option("--json", help="Prints JSON.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOptions:
    """Which server is asked, and by whom.

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
        str, typer.Option(envvar="F2L_SERVER", help="host:port of the control service.")
    ] = "127.0.0.1:8770",
    certificates: Annotated[
        Path, typer.Option(envvar="F2L_CERTIFICATES", help="Folder of the caller's identity.")
    ] = Path("certificates"),
    name: Annotated[str, typer.Option(envvar="F2L_NAME", help="Name of that identity.")] = "admin",
    debug: Annotated[bool, typer.Option(help="Shows where an error arose.")] = False,
) -> None:
    """The options of f2l-admin itself: before any command."""
    if debug:
        os.environ["F2L_DEBUG"] = "1"
    context.obj = ConnectionOptions(server=server, certificates=certificates, name=name)


def health(way: typer.Context, as_json: AsJson = False) -> None:
    """Whether the server's parts work; ends with 1 if one does not."""
    from server.control import client as control_client

    found = _call(way, control_client.parts)
    text = ", ".join(f"{part} {'works' if well else 'is down'}" for part, well in found.items())
    _say(text, found, as_json)
    if not all(found.values()):
        raise typer.Exit(1)


def _say(text: str, record: dict[str, Any], as_json: bool) -> None:
    print(json.dumps(record, indent=1) if as_json else text)


def _call(context: typer.Context, question: Callable[[Any], Awaitable[Any]]) -> Any:
    from server.control import client as control_client

    way: ConnectionOptions = context.obj

    async def ask() -> Any:
        async with control_client.connect(way.server, way.certificates, way.name) as to:
            return await question(to)

    return asyncio.run(ask())


def _show(rows: list[dict[str, Any]], columns: tuple[str, ...], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*(Text(_cell(row[column])) for column in columns))
    Console().print(table)


def _cell(value: Any) -> str:
    """Lists and tables of names as their number, everything else as it is."""
    return str(len(value)) if isinstance(value, tuple | list | dict) else str(value)
