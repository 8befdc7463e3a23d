"""The administrator's view of a round in progress."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator

import pytest
from rich.console import Console

from f2l_fed import events
from server.control.watch import RoundView
from server.control.watch import _next as next_event
from server.reporting.console_progress import ProgressView

HOSTILE = "[/red] [bold]x[/]"


def shown(*what: object) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(*what)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_texts_of_sites_are_shown_literally():
    view = RoundView()
    view.take({"event": events.SITE_REJECTED, "site": HOSTILE, "reason": HOSTILE, "round": 1})
    view.take({"event": events.ROUND_FAILED, "reason": HOSTILE, "round": 1})
    text = shown(view.shown())
    assert text.count("[/red] [bold]x[/]") == 3


def test_a_site_that_failed_at_the_check_in_goes_by_its_name_and_a_remark_is_seen():
    view = RoundView()
    failed = {"event": events.SITE_FAILED, "node": "7", "reason": "too few classes"}
    view.take({**failed, "site": "north", "code": "unable"})
    view.take({**failed, "node": "8"})
    view.take({"event": events.ROUND_STARTED, "round": 1, "sites": 2, "remark": "few sites"})
    text = shown(view.shown())
    assert "north   can't take part  too few classes" in text
    assert "node 8  failed" in text
    assert "few sites" in text


def test_a_long_title_is_not_broken_in_the_width_of_the_table():
    view = RoundView()
    view.take({"event": events.ROUND_FAILED, "round": 1, "reason": "for want of sites " * 5})
    view.take({"event": events.SITE_REJECTED, "site": "a", "reason": "late", "round": 1})
    assert shown(view.shown()).splitlines()[0].startswith("round 1 failed: for want of sites for")
    assert len(shown(view.shown()).splitlines()) == 3


def test_the_progress_shows_them_literally_too():
    console = Console(file=io.StringIO(), width=200, stderr=False)
    with ProgressView(console, 1) as progress:
        progress(events.SITE_REJECTED, {"site": HOSTILE, "reason": HOSTILE})
        progress(events.RELEASE_REJECTED, {"release": "00001", "reasons": [HOSTILE]})
        progress(events.ROUND_FAILED, {"round": 1, "reason": HOSTILE})
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("[/red] [bold]x[/]") == 4


def test_a_watch_that_is_interrupted_while_nothing_comes_can_be_closed():
    async def silence() -> AsyncIterator[dict[str, object]]:
        await asyncio.Event().wait()
        yield {}

    async def interrupted() -> None:
        heard, over = silence(), asyncio.create_task(asyncio.sleep(3600))
        waiting = asyncio.create_task(next_event(heard, over))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await heard.aclose()
        over.cancel()

    asyncio.run(interrupted())
