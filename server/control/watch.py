"""A remote view of the rounds of a server: a live table on a terminal, else JSON lines."""

from __future__ import annotations

import asyncio
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from f2l_fed import events
from f2l_fed.core.terminal import console
from f2l_fed.core.wording import number_of
from server.control import client as control_client

_STEPS = {
    events.SITE_PROBED: "probed",
    events.SITE_ACCEPTED: "accepted",
    events.SITE_REJECTED: "rejected",
    events.SITE_QUARANTINED: "in quarantine",
}
_POLL_S = 2.0


class RoundView:
    """The state of each site in the present round, from the events so far."""

    def __init__(self) -> None:
        self.title = "no round yet"
        self.sites: dict[str, tuple[str, str]] = {}

    def take(self, event: dict[str, Any]) -> None:
        """Takes one event."""
        name = events.current_name(event["event"])
        if name == events.RUN_STARTED:
            self.title, self.sites = f"run {event['run']}: waiting for sites", {}
        elif name == events.ROUND_STARTED:
            remark = f"; {event['remark']}" if event.get("remark") else ""
            asked = number_of(event["sites"], "site fine-tunes", "sites fine-tune")
            self.title = f"round {event['round']}: {asked}{remark}"
        elif name in _STEPS and "site" in event:
            state = "can't take part" if event.get("code") == "unable" else _STEPS[name]
            self.sites[event["site"]] = (state, str(event.get("reason", "")))
        elif name == events.SITE_FAILED:
            name = event.get("site") or f"node {event.get('node', '')}"
            state = "can't take part" if event.get("code") == "unable" else "failed"
            self.sites[name] = (state, str(event.get("reason", "")))
        elif name == events.RETRAINING_STARTED:
            self.title = f"round {event['round']}: the generator is retrained"
        elif name == events.ROUND_FINISHED:
            self.title = (
                f"round {event['round']} done: {event['accepted']} accepted, "
                f"{event.get('quarantined', 0)} in quarantine, {event['rejected']} rejected, "
                "accuracy at the sites "
                f"{event['accuracy_before']:.3f} before and {event['accuracy_after']:.3f} after"
            )
        elif name == events.ROUND_FAILED:
            self.title = f"round {event['round']} failed: {event['reason']}"
        elif name == events.RUN_ENDED and event.get("reason"):
            self.title = f"the run ended: {event['reason']}"

    def shown(self) -> Group:
        """The state of the round, and the table of its sites.

        The title is no part of the table, in whose width it would be broken.
        """
        table = Table("site", "state", "", box=None)
        for site, (state, reason) in sorted(self.sites.items()):
            # Names and reasons come from sites.
            table.add_row(Text(site), state, Text(reason))
        return Group(Text(self.title), table)


async def follow(
    server: str, certificates: Path, name: str, *, as_json: bool, seconds: float
) -> bool:
    """Shows events until no round is under way.

    Args:
        server: ``host:port`` of the control service.
        certificates: Folder of the caller's identity.
        name: Of this identity.
        as_json: One JSON object a line, on a terminal too.
        seconds: Longest watch.

    Returns:
        Whether no run has failed so far.
    """
    printer, view = console(), RoundView()
    lively = printer.is_terminal and not as_json
    live = Live(view.shown(), console=printer) if lively else None
    async with control_client.connect(server, certificates, name) as to:
        over = asyncio.create_task(_until_idle(to))
        with live or nullcontext():
            heard = control_client.watch_events(to, since_run=True, duration_s=seconds)
            try:
                while (event := await _next(heard, over)) is not None:
                    view.take(event)
                    if live is not None:
                        live.update(view.shown())
                    else:
                        print(json.dumps(event), flush=True)
            finally:
                over.cancel()
                await heard.aclose()  # type: ignore[attr-defined]
        return not (await control_client.show_run(to)).reason


async def _until_idle(to: control_client.Connection) -> None:
    while (await control_client.show_run(to)).run:
        await asyncio.sleep(_POLL_S)


async def _next(heard: Any, over: asyncio.Task[None]) -> dict[str, Any] | None:
    """The next event; None when the watch has ended, or nothing more comes after the end."""
    coming = asyncio.ensure_future(anext(heard, None))
    try:
        await asyncio.wait({coming, over}, return_when=asyncio.FIRST_COMPLETED)
        if not coming.done():
            over.result()
            # The last events may still be on their way.
            await asyncio.wait({coming}, timeout=1.0)
        if not coming.done():
            return None
    finally:
        # Also where Ctrl-C ends the watch: events can't be closed while one is awaited.
        if not coming.done():
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
    event: dict[str, Any] | None = coming.result()
    return event
