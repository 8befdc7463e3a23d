"""f2l-admin round, release and site: commands that a running f2l-server carries out."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

rounds = typer.Typer(help="Rounds.", no_args_is_help=True, pretty_exceptions_enable=False)
releases = typer.Typer(help="Releases.", no_args_is_help=True, pretty_exceptions_enable=False)
sites = typer.Typer(help="Sites.", no_args_is_help=True, pretty_exceptions_enable=False)

AsJson = Annotated[bool, typer.Option("--json", help="Prints JSON.")]
_WATCH_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
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
    context.obj = Way(server=server, certificates=certificates, name=name)


def health(way: typer.Context, as_json: AsJson = False) -> None:
    """Whether the server's parts work; ends with 1 if one does not."""
    from server import control

    found = _call(way, control.parts)
    text = ", ".join(f"{part} {'works' if well else 'is down'}" for part, well in found.items())
    _say(text, found, as_json)
    if not all(found.values()):
        raise typer.Exit(1)


@rounds.command(name="list")
def list_rounds(
    way: typer.Context,
    as_json: AsJson = False,
) -> None:
    """All rounds, oldest first."""
    from server import control

    found = _call(way, control.list_rounds)
    _show(
        [asdict(state) for state in found],
        ("number", "step", "sites", "accepted", "rejected", "release", "reason"),
        as_json,
    )


@rounds.command()
def start(
    way: typer.Context,
    count: Annotated[int, typer.Option("--rounds", min=1, help="How many.")] = 1,
    wait_for: Annotated[
        int, typer.Option("--sites", min=0, help="Sites to wait for; 0 for all registered.")
    ] = 0,
    follow: Annotated[bool, typer.Option("--watch", help="Stays until they are over.")] = False,
    as_json: AsJson = False,
) -> None:
    """Starts rounds, one after the other."""
    from server import control

    run = _call(way, lambda to: control.start_rounds(to, count=count, sites=wait_for))
    if not follow:
        _say(f"run {run.run} is started with {run.sites} sites", asdict(run), as_json)
        return
    _follow(way, as_json, _WATCH_S)


@rounds.command()
def status(
    way: typer.Context,
    as_json: AsJson = False,
) -> None:
    """What the server is doing about rounds."""
    from server import control

    run = _call(way, control.show_run)
    text = f"run {run.run} by {run.by} is under way" if run.run else "no round is under way"
    if run.remaining:
        text += f", {run.remaining} more to come"
    if run.reason:
        text += f"; the last one ended: {run.reason}"
    _say(text, asdict(run), as_json)


@rounds.command()
def abort(
    way: typer.Context,
) -> None:
    """Ends the round that is under way or interrupted; what has come in stays in the zoo."""
    from server import control

    print(_call(way, control.abort_round).reason)


@rounds.command()
def resume(
    way: typer.Context,
    wait_for: Annotated[
        int, typer.Option("--sites", min=0, help="Sites to wait for; 0 for as many as before.")
    ] = 0,
) -> None:
    """Takes up a round that was interrupted; a server that restarts does so by itself."""
    from server import control

    run = _call(way, lambda to: control.resume_round(to, sites=wait_for))
    print(f"run {run.run} is started")


@rounds.command()
def watch(
    way: typer.Context,
    seconds: Annotated[float, typer.Option(help="How long to watch.")] = 3600.0,
    as_json: AsJson = False,
) -> None:
    """Shows each site's progress until the rounds are over; ends with 1 if one went wrong."""
    _follow(way, as_json, seconds)


@releases.command(name="list")
def list_releases(
    way: typer.Context,
    as_json: AsJson = False,
) -> None:
    """All releases, oldest first."""
    from server import control

    found = _call(way, control.list_releases)
    _show(
        [asdict(release) for release in found],
        ("id", "state", "parent", "snapshot", "reasons"),
        as_json,
    )


@releases.command()
def show(
    way: typer.Context,
    id: Annotated[str, typer.Argument(help="The release.")],
) -> None:
    """Everything that is known of a release, as JSON."""
    from server import control

    release = _call(way, lambda to: control.show_release(to, id))
    print(json.dumps(asdict(release), indent=1))


@releases.command()
def promote(
    way: typer.Context,
    id: Annotated[str, typer.Argument(help="The release that sites shall get.")],
) -> None:
    """Makes a release the one that sites get."""
    from server import control

    release = _call(way, lambda to: control.promote(to, id))
    print(f"{release.id} is {release.state}")


@releases.command()
def rollback(
    way: typer.Context,
) -> None:
    """Goes back to the release before the one that sites get."""
    from server import control

    release = _call(way, control.rollback)
    print(f"{release.id} is {release.state}")


@sites.command()
def add(
    way: typer.Context,
    site: Annotated[str, typer.Argument(help="Name of the site; used once.")],
    out: Annotated[
        Path | None, typer.Option(help="File for the kit; NAME.kit if left out.")
    ] = None,
    hours: Annotated[
        int, typer.Option(min=0, help="How long the kit can be used; 0 for the server's setting.")
    ] = 0,
    replace: Annotated[
        bool, typer.Option("--replace", help="Also for a site that is registered, once more.")
    ] = False,
) -> None:
    """Makes a kit: one file that lets a site register, once and for a limited time."""
    from f2l_fed.errors import UsageError
    from server import control

    path = out or Path(f"{site}.kit")
    if path.exists():
        raise UsageError(
            "this is there already and is never overwritten",
            where=str(path),
            remedy="Name another file with --out.",
        )
    kit = _call(
        way,
        lambda to: control.add_site(to, site, hours=hours, replace=replace),
    )
    from f2l_fed.files import write_atomically

    write_atomically(path, kit.decode(), mode=0o600)
    about = json.loads(kit)
    print(f"{path} is the kit of {site}, good once, until {about['expires']}")
    print(f"fingerprint {about['fingerprint'][:16]}: the site compares it when it unpacks the kit")


@sites.command()
def remove(
    way: typer.Context,
    site: Annotated[str, typer.Argument(help="Name of the site.")],
) -> None:
    """Takes a site out for good: its next request is refused. Its networks stay in the zoo."""
    from server import control

    removed = _call(way, lambda to: control.remove_site(to, site))
    print(f"{removed.name} is {removed.state}; its networks: f2l-admin zoo forget ZOO {site}")


@sites.command(name="list")
def list_sites(
    way: typer.Context,
    as_json: AsJson = False,
) -> None:
    """Sites and what they have contributed."""
    from server import control

    found = [asdict(site) for site in _call(way, control.list_sites)]
    columns = ("name", "state", "online", "accepted", "rejected", "last_round", "ends")
    _show(found, columns, as_json)


def _follow(context: typer.Context, as_json: bool, seconds: float) -> None:
    from server.watch import follow

    way: Way = context.obj
    watched = follow(way.server, way.certificates, way.name, as_json=as_json, seconds=seconds)
    if not asyncio.run(watched):
        raise typer.Exit(1)


def _say(text: str, record: dict[str, Any], as_json: bool) -> None:
    print(json.dumps(record, indent=1) if as_json else text)


def _call(context: typer.Context, question: Callable[[Any], Awaitable[Any]]) -> Any:
    from server import control

    way: Way = context.obj

    async def ask() -> Any:
        async with control.connect(way.server, way.certificates, way.name) as to:
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
