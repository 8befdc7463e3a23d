"""f2l-admin round, release and site: commands that a running f2l-server carries out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

rounds = typer.Typer(help="Rounds.", no_args_is_help=True, pretty_exceptions_enable=False)
releases = typer.Typer(help="Releases.", no_args_is_help=True, pretty_exceptions_enable=False)
sites = typer.Typer(help="Sites.", no_args_is_help=True, pretty_exceptions_enable=False)

Server = Annotated[str, typer.Option(envvar="F2L_SERVER", help="host:port of the control service.")]
Certificates = Annotated[
    Path, typer.Option(envvar="F2L_CERTIFICATES", help="Folder of the caller's identity.")
]
Name = Annotated[str, typer.Option(envvar="F2L_NAME", help="Name of that identity.")]
AsJson = Annotated[bool, typer.Option("--json", help="Prints JSON.")]
_SERVER, _CERTIFICATES, _NAME = "127.0.0.1:8770", Path("certificates"), "admin"


@rounds.command(name="list")
def list_rounds(
    server: Server = _SERVER,
    certificates: Certificates = _CERTIFICATES,
    name: Name = _NAME,
    as_json: AsJson = False,
) -> None:
    """All rounds, oldest first."""
    from server import control

    found = _call(server, certificates, name, control.list_rounds)
    _show(
        [asdict(state) for state in found],
        ("number", "step", "sites", "accepted", "rejected", "release", "reason"),
        as_json,
    )


@rounds.command()
def watch(
    server: Server = _SERVER,
    certificates: Certificates = _CERTIFICATES,
    name: Name = _NAME,
    seconds: Annotated[float, typer.Option(help="How long to watch.")] = 600.0,
) -> None:
    """Shows rounds as they change, one JSON object a line."""
    from server import control

    async def follow() -> None:
        async with control.connect(server, certificates, name) as to:
            async for state in control.watch_rounds(to, duration_s=seconds):
                print(json.dumps(asdict(state)), flush=True)

    asyncio.run(follow())


@releases.command(name="list")
def list_releases(
    server: Server = _SERVER,
    certificates: Certificates = _CERTIFICATES,
    name: Name = _NAME,
    as_json: AsJson = False,
) -> None:
    """All releases, oldest first."""
    from server import control

    found = _call(server, certificates, name, control.list_releases)
    _show(
        [asdict(release) for release in found],
        ("id", "state", "parent", "snapshot", "reasons"),
        as_json,
    )


@releases.command()
def show(
    id: Annotated[str, typer.Argument(help="The release.")],
    server: Server = _SERVER,
    certificates: Certificates = _CERTIFICATES,
    name: Name = _NAME,
) -> None:
    """Everything that is known of a release, as JSON."""
    from server import control

    release = _call(server, certificates, name, lambda to: control.show_release(to, id))
    print(json.dumps(asdict(release), indent=1))


@releases.command()
def promote(
    id: Annotated[str, typer.Argument(help="The release that sites shall get.")],
    server: Server = _SERVER,
    certificates: Certificates = _CERTIFICATES,
    name: Name = _NAME,
) -> None:
    """Makes a release the one that sites get."""
    from server import control

    release = _call(server, certificates, name, lambda to: control.promote(to, id))
    print(f"{release.id} is {release.state}")


@releases.command()
def rollback(
    server: Server = _SERVER,
    certificates: Certificates = _CERTIFICATES,
    name: Name = _NAME,
) -> None:
    """Goes back to the release before the one that sites get."""
    from server import control

    release = _call(server, certificates, name, control.rollback)
    print(f"{release.id} is {release.state}")


@sites.command(name="list")
def list_sites(
    server: Server = _SERVER,
    certificates: Certificates = _CERTIFICATES,
    name: Name = _NAME,
    as_json: AsJson = False,
) -> None:
    """Sites and what they have contributed."""
    from server import control

    found = [asdict(site) for site in _call(server, certificates, name, control.list_sites)]
    _show(found, tuple(found[0]) if found else (), as_json)


def _call(
    server: str, certificates: Path, name: str, question: Callable[[Any], Awaitable[Any]]
) -> Any:
    from server import control

    async def ask() -> Any:
        async with control.connect(server, certificates, name) as to:
            return await question(to)

    return asyncio.run(ask())


def _show(rows: list[dict[str, Any]], columns: tuple[str, ...], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in columns))
    Console().print(table)


def _cell(value: Any) -> str:
    """Lists and tables of names as their number, everything else as it is."""
    return str(len(value)) if isinstance(value, tuple | list | dict) else str(value)
