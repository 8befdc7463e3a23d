"""TODO."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer

from server.commands.connection import AsJson, ConnectionOptions, _call, _say, _show

rounds = typer.Typer(help="Rounds.", no_args_is_help=True, pretty_exceptions_enable=False)


_WATCH_S = 3600.0


@rounds.command(name="list")
def list_rounds(
    way: typer.Context,
    as_json: AsJson = False,
) -> None:
    """All rounds, oldest first."""
    from server.control import client as control_client

    found = _call(way, control_client.list_rounds)
    _show(
        [asdict(state) for state in found],
        ("number", "step", "sites", "accepted", "quarantined", "rejected", "release", "reason"),
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
    from server.control import client as control_client

    run = _call(way, lambda to: control_client.start_rounds(to, count=count, sites=wait_for))
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
    from server.control import client as control_client

    run = _call(way, control_client.show_run)
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
    from server.control import client as control_client

    print(_call(way, control_client.abort_round).reason)


@rounds.command()
def resume(
    way: typer.Context,
    wait_for: Annotated[
        int, typer.Option("--sites", min=0, help="Sites to wait for; 0 for as many as before.")
    ] = 0,
) -> None:
    """Takes up a round that was interrupted; a server that restarts does so by itself."""
    from server.control import client as control_client

    run = _call(way, lambda to: control_client.resume_round(to, sites=wait_for))
    print(f"run {run.run} is started")


@rounds.command()
def watch(
    way: typer.Context,
    seconds: Annotated[float, typer.Option(help="How long to watch.")] = 3600.0,
    as_json: AsJson = False,
) -> None:
    """Shows each site's progress until the rounds are over; ends with 1 if one went wrong."""
    _follow(way, as_json, seconds)


def _follow(context: typer.Context, as_json: bool, seconds: float) -> None:
    from server.control.watch import follow

    way: ConnectionOptions = context.obj
    watched = follow(way.server, way.certificates, way.name, as_json=as_json, seconds=seconds)
    if not asyncio.run(watched):
        raise typer.Exit(1)
