"""Rounds as runs, with a stand-in for the SuperLink.

What really runs on one is in ``tests/integration/test_federation.py``.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from f2l_fed.core.locks import locked
from f2l_fed.errors import F2LError, RoundError, UsageError
from server.rounds import state as round_state
from server.rounds import state_files
from server.rounds.run_end import RunEnd, run_end_path
from server.rounds.state import Interrupted
from server.scheduling import run_scheduler
from server.scheduling.run_scheduler import RunScheduler
from server.superlink.client import SuperLinkError
from tests.support.link import (
    LIMIT_S,
    Link,
    begin_round,
    followed,
    full_disk,
    holds,
    known,
    looks,
    of,
    run,
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(run_scheduler, "_POLL_S", 0.005)
    (tmp_path / "flower").mkdir()
    (tmp_path / "rounds").mkdir()
    return tmp_path


def test_a_start_after_an_abort_waits_until_the_aborted_run_has_let_go(root: Path) -> None:
    async def play() -> None:
        those = of(root, link := Link(root))
        await those.start("anna", count=3, sites=2)
        begin_round(root)
        with locked(root / "rounds/lock"):
            told = await those.abort("anna")
            assert (told.run, told.remaining, told.reason) == (0, 0, "aborted by anna")
            assert link.stopped == [1]
            assert known(root)[-1].step == "failed"
            again = asyncio.create_task(those.start("anna", count=1, sites=2))
            await looks()
            assert len(link.started) == 1
        assert (await again).run == 2

    run(play)


def test_a_start_says_in_time_that_the_last_run_does_not_end(root: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(run_scheduler, "_ENDING_S", 0.02)

    async def play() -> None:
        those = of(root, link := Link(root))
        async with followed(those):
            with locked(root / "rounds/lock"), pytest.raises(UsageError) as refusal:
                await those.start("anna", count=1, sites=2)
            assert str(refusal.value) == "the last run is still ending. Try again in some seconds."
            await looks()
            assert link.started == []
            assert (await those.start("anna", count=1, sites=2)).run == 1

    run(play)


def test_a_run_that_is_due_waits_for_the_rounds_too(root: Path) -> None:
    async def play() -> None:
        those = of(root, link := Link(root))
        await those.start("anna", count=1, sites=2)
        begin_round(root)
        those = of(root, link := Link(root, first=2))
        await those.take_up()
        async with followed(those):
            with locked(root / "rounds/lock"):
                await looks()
                assert link.started == []
            await holds(lambda: those.requested().run == 2)

    run(play)


def test_a_call_that_is_cancelled_leaves_no_run_unknown(root: Path) -> None:
    async def play() -> None:
        those = of(root, link := Link(root))
        link.open.clear()
        call = asyncio.create_task(those.start("anna", count=1, sites=2))
        await asyncio.to_thread(link.asked.wait, LIMIT_S)
        call.cancel()
        other = asyncio.create_task(those.start("bert", count=1, sites=2))
        await looks()
        link.open.set()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (those.requested().run, those.requested().by) == (1, "anna")
        with pytest.raises(UsageError, match="a round is under way"):
            await other
        assert len(link.started) == 1

    run(play)


def test_an_abort_that_is_cancelled_is_done_as_a_whole(root: Path) -> None:
    async def play() -> None:
        those = of(root, link := Link(root))
        await those.start("anna", count=1, sites=2)
        begin_round(root)
        called, go_on = threading.Event(), threading.Event()
        stop = link.stop

        def slowly(id: int) -> None:
            called.set()
            assert go_on.wait(LIMIT_S)
            stop(id)

        link.stop = slowly  # type: ignore[method-assign]
        call = asyncio.create_task(those.abort("anna"))
        await asyncio.to_thread(called.wait, LIMIT_S)
        call.cancel()
        await looks()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert known(root)[-1].reason == "aborted by anna"
        assert those.requested().run == 0

    run(play)


def test_a_server_killed_while_it_starts_a_run_knows_what_was_requested(root: Path) -> None:
    async def play() -> None:
        those, noted = of(root, link := Link(root)), root / "flower/wanted.json"
        at_that_moment: list[str] = []
        link.on_start = lambda: at_that_moment.append(noted.read_text())
        await those.start("anna", count=2, sites=2)
        noted.write_text(at_that_moment[0])
        those = of(root, link := Link(root, first=2))
        await those.take_up()
        async with followed(those):
            await holds(lambda: those.requested().run == 2)
        assert [(one["rounds"], one["sites"]) for one in link.started] == [(1, 2)]
        assert those.requested().remaining == 1

    run(play)


def test_no_run_is_started_that_can_not_be_saved(root: Path) -> None:
    async def play() -> None:
        those = of(root, link := Link(root))
        with (
            full_disk(),
            pytest.raises(F2LError, match=r"wanted\.json: the run plan can't be saved"),
        ):
            await those.start("anna", count=2, sites=2)
        assert link.started == []
        await those.start("anna", count=2, sites=2)
        async with followed(those):
            with full_disk():
                for _ in link.conduct():
                    pass
                await looks()
                assert len(link.started) == 1
            await holds(lambda: those.requested().run == 2)
        assert len(link.started) == 2

    run(play)


def test_a_run_is_stopped_if_the_disk_is_full_once_it_is_there(root: Path) -> None:
    async def play() -> None:
        those = of(root, link := Link(root))
        with ExitStack() as disk:
            link.on_start = lambda: disk.enter_context(full_disk())
            with pytest.raises(RoundError, match="Make room"):
                await those.start("anna", count=1, sites=2)
        assert link.stopped == [1]

    run(play)


def test_what_the_superlink_refuses_is_not_tried_again(root: Path) -> None:
    async def play() -> None:
        those = of(root, link := Link(root))

        def refuse() -> None:
            raise SuperLinkError("no")

        link.on_start = refuse
        async with followed(those):
            with pytest.raises(SuperLinkError):
                await those.start("anna", count=1, sites=2)
            link.on_start = lambda: None
            await looks()
        assert link.started == []
        assert not those.requested().remaining

    run(play)


@pytest.mark.parametrize("moment", range(9))
@pytest.mark.parametrize("interrupted", [False, True])
def test_a_restart_at_any_moment_neither_drops_a_round_nor_adds_one(
    root: Path, moment: int, interrupted: bool
) -> None:
    """Two rounds are asked for; a third is there already where one was interrupted."""
    if interrupted:
        begin_round(root)

    async def restarted(link: Link) -> tuple[RunScheduler, Link]:
        link = Link(root, first=link.last + 1)
        those = of(root, link)
        await those.take_up()
        return those, link

    async def next_one(those: RunScheduler, link: Link, before: int) -> None:
        def on_its_way() -> bool:
            run = those.requested().run
            return not run or (len(link.started) > before and run == link.last)

        async with followed(those):
            await holds(on_its_way)

    async def play() -> None:
        link, moments = Link(root), 0
        those = of(root, link)
        await those.start("anna", count=2, sites=2)
        while those.requested().run:
            before = len(link.started)
            for _ in link.conduct():
                moments += 1
                if moments == moment:
                    (those, link), before = await restarted(link), 0
                    break
            await next_one(those, link, before)

    run(play)
    assert [(state.number, state.step) for state in known(root)] == [
        (number, "done") for number in range(1, 4 if interrupted else 3)
    ]


def test_between_two_rounds_a_run_is_told_so_that_watchers_stay(root: Path) -> None:
    async def play() -> None:
        those = of(root, link := Link(root))
        await those.start("anna", count=2, sites=2)
        link.open.clear()
        link.asked.clear()
        async with followed(those):
            for _ in link.conduct():
                pass
            await asyncio.to_thread(link.asked.wait, LIMIT_S)
            assert (those.requested().run, those.requested().remaining) == (1, 0)
            link.open.set()
            await holds(lambda: those.requested().run == 2)

    run(play)


def test_an_interruption_is_told_in_our_own_words(root: Path) -> None:
    async def play() -> None:
        those = of(root, link := Link(root))
        await those.start("anna", count=1, sites=2)
        error = Interrupted("the cluster was lost", remedy="Start it again.")
        RunEnd.of("1", error).write(run_end_path(root))
        link.outcomes[1] = "failed"
        async with followed(those):
            await holds(lambda: not those.requested().run)
        assert those.requested().reason == "the cluster was lost. Start it again."

    run(play)


@pytest.mark.parametrize("left", ["", "{}", '{"run": "7", "outcome": "failed", "reason": "old"}'])
def test_a_run_without_a_record_of_its_end_is_told_in_flower_s_words(root: Path, left: str) -> None:
    run_end_path(root).write_text(left)

    async def play() -> None:
        those = of(root, link := Link(root))
        await those.start("anna", count=1, sites=2)
        link.details, link.outcomes[1] = "ServerApp failed", "failed"
        async with followed(those):
            await holds(lambda: not those.requested().run)
        assert those.requested().reason == "ServerApp failed"

    run(play)


def test_rounds_after_a_failed_one_are_not_started(root: Path) -> None:
    async def play() -> None:
        those = of(root, link := Link(root))
        await those.start("anna", count=2, sites=2)
        state_files.save_state(root / "rounds", round_state.failed(begin_round(root), "no quorum"))
        link.outcomes[1] = "completed"
        async with followed(those):
            await holds(lambda: not those.requested().run)
            await looks()
        assert len(link.started) == 1
        told = those.requested()
        assert (told.remaining, told.reason) == (0, "no quorum")

    run(play)


def test_a_resumed_round_is_taken_up_after_a_restart_and_no_new_one(root: Path) -> None:
    begin_round(root)

    async def play() -> None:
        those = of(root, link := Link(root))
        await those.resume("anna", sites=0)
        assert (link.started[-1]["rounds"], link.started[-1]["sites"]) == (0, 2)
        those = of(root, link := Link(root, first=2))
        await those.take_up()
        async with followed(those):
            await holds(lambda: those.requested().run == 2)
            for _ in link.conduct():
                pass
            await holds(lambda: not those.requested().run)
        with pytest.raises(UsageError, match="no round was interrupted"):
            await those.resume("anna", sites=0)
        assert [state.number for state in known(root)] == [1]

    run(play)


def test_a_file_of_an_older_version_can_be_read(root: Path) -> None:
    (root / "flower/wanted.json").write_text(
        '{"by": "anna", "sites": 2, "remaining": 0, "run": 7, "reason": ""}'
    )
    begin_round(root)

    async def play() -> None:
        those = of(root, Link(root, first=8))
        await those.take_up()
        async with followed(those):
            await holds(lambda: those.requested().run == 8)

    run(play)
