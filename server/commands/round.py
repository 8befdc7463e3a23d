"""f2l-admin round: rounds of a running f2l-server."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from f2l_fed.core.command_line import interruption_told, run_until_interrupted
from f2l_fed.core.wording import number_of
from server.commands.connection import call, connection_options
from server.commands.output import AsJson, print_record, print_rows

app = typer.Typer(
    help="Start, watch and end rounds.", no_args_is_help=True, pretty_exceptions_enable=False
)

_WATCH_S = 3600.0
_ACTIVE = "active"
_MOST_NAMES = 10


@app.command(name="list")
def list_rounds(
    context: typer.Context,
    as_json: AsJson = False,
) -> None:
    """List all rounds, oldest first."""
    from server.control import client as control_client

    found = call(context, control_client.list_rounds)
    print_rows(
        [asdict(state) for state in found],
        ("number", "step", "sites", "accepted", "quarantined", "rejected", "release", "reason"),
        as_json,
    )


@app.command()
def start(
    context: typer.Context,
    count: Annotated[int, typer.Option("--rounds", min=1, help="Run this many rounds.")] = 1,
    wait_for: Annotated[
        int,
        typer.Option("--sites", min=0, help="Wait for this many sites; 0 for all registered."),
    ] = 0,
    follow: Annotated[bool, typer.Option("--watch", help="Watch until they are over.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start rounds, one after the other."""
    from server.control import client as control_client

    run = call(
        context, lambda server: control_client.start_rounds(server, count=count, sites=wait_for)
    )
    _tell_missing(context, run.sites)
    if not follow:
        waited = number_of(run.sites, "site")
        print_record(f"run {run.run} is started with {waited}", asdict(run), as_json)
        return
    _follow(context, as_json, _WATCH_S)


@app.command()
def status(
    context: typer.Context,
    as_json: AsJson = False,
) -> None:
    """Show the run that is under way and what comes after it."""
    from server.control import client as control_client

    run = call(context, control_client.show_run)
    text = f"run {run.run} by {run.by} is under way" if run.run else "no round is under way"
    if run.remaining:
        text += f", {run.remaining} more to come"
    if run.reason:
        text += f"; the last one ended: {run.reason}"
    print_record(text, asdict(run), as_json)


@app.command()
def abort(
    context: typer.Context,
) -> None:
    """End the round that is under way or interrupted; keep in the zoo what has come in."""
    from server.control import client as control_client

    print(call(context, control_client.abort_round).reason)


@app.command()
def resume(
    context: typer.Context,
    wait_for: Annotated[
        int,
        typer.Option("--sites", min=0, help="Wait for this many sites; 0 for as many as before."),
    ] = 0,
) -> None:
    """Resume a round that was interrupted; a server that restarts does so by itself."""
    from server.control import client as control_client

    run = call(context, lambda server: control_client.resume_round(server, sites=wait_for))
    print(f"run {run.run} is started")


@app.command()
def watch(
    context: typer.Context,
    seconds: Annotated[float, typer.Option(help="Stop watching after so many seconds.")] = 3600.0,
    as_json: AsJson = False,
) -> None:
    """Show each site's progress until the rounds are over; end with 1 if one failed."""
    _follow(context, as_json, seconds)


def _tell_missing(context: typer.Context, wanted: int) -> None:
    """Tells on standard error which sites are not online, where fewer are than a run waits for."""
    from server.control import client as control_client

    registered = [
        site for site in call(context, control_client.list_sites) if site.state == _ACTIVE
    ]
    away = [site.name for site in registered if not site.online]
    online = len(registered) - len(away)
    if online < wanted:
        names = ", ".join(away[:_MOST_NAMES]) + (", …" if len(away) > _MOST_NAMES else "")
        print(
            f"{online} of {len(registered)} registered sites are online, and the run waits for "
            f"{wanted}; not online: {names}. With --sites {max(online, 1)} it would not wait.",
            file=sys.stderr,
        )


def _follow(context: typer.Context, as_json: bool, seconds: float) -> None:
    from server.control.watch import follow

    to = connection_options(context)
    watched = follow(to.server, to.certificates, to.name, as_json=as_json, seconds=seconds)
    goes_on = (
        "the rounds go on at the server; f2l-admin round watch shows them, round abort ends them"
    )
    with interruption_told(goes_on):
        well = run_until_interrupted(watched)
    if not well:
        raise typer.Exit(1)
