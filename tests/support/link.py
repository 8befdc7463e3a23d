"""A stand-in for the SuperLink, which can be held at the moments that matter."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from server.rounds import state as round_state
from server.rounds import state_files
from server.scheduling import run_scheduler
from server.scheduling.run_scheduler import RunScheduler
from server.superlink.client import Run
from tests.support.waiting import PATIENCE_S

LIMIT_S = PATIENCE_S


class Link:
    """A SuperLink whose runs go on when they are told to.

    Args:
        root: The federation's folder.
        first: Number of its first run.
    """

    def __init__(self, root: Path, first: int = 1) -> None:
        self.root, self.first = root, first
        self.started: list[dict[str, Any]] = []
        self.stopped: list[int] = []
        self.outcomes: dict[int, str] = {}
        self.details = ""
        self.open, self.asked = threading.Event(), threading.Event()
        self.open.set()
        self.on_start: Callable[[], object] = lambda: None

    def start(self, settings: dict[str, Any]) -> int:
        self.asked.set()
        self.on_start()
        assert self.open.wait(LIMIT_S)
        self.started.append(settings)
        return self.last

    @property
    def last(self) -> int:
        return self.first + len(self.started) - 1

    def run(self, id: int) -> Run:
        outcome = self.outcomes.get(id, "")
        status = "finished" if outcome else "running"
        return Run(id=id, status=status, outcome=outcome, details=self.details)

    def stop(self, id: int) -> None:
        self.stopped.append(id)
        self.outcomes[id] = "stopped"

    def conduct(self) -> Iterator[None]:
        """Moves the last run on, from one write of a round's file to the next, and to its end."""
        yield
        if last := unfinished(self.root):
            end_round(self.root, last)
            yield
        for _ in range(self.started[-1]["rounds"]):
            state = begin_round(self.root)
            yield
            end_round(self.root, state)
            yield
        self.outcomes[self.last] = "completed"


def known(root: Path) -> list[round_state.RoundState]:
    return state_files.load_states(root / "rounds")


def unfinished(root: Path) -> round_state.RoundState | None:
    states = known(root)
    return states[-1] if states and states[-1].step not in ("done", "failed") else None


def begin_round(root: Path) -> round_state.RoundState:
    state = round_state.begun(len(known(root)) + 1, "", 2)
    state_files.save_state(root / "rounds", state)
    return state


def end_round(root: Path, state: round_state.RoundState) -> None:
    state_files.save_state(root / "rounds", dataclasses.replace(state, step="done"))


def of(root: Path, link: Link) -> RunScheduler:
    return RunScheduler(root, lambda: link)  # type: ignore[arg-type,return-value]


@contextmanager
def full_disk() -> Iterator[None]:
    """No run plan can be saved."""

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("server.scheduling.run_plan.write_atomically", refuse)
        yield


@asynccontextmanager
async def followed(those: RunScheduler) -> AsyncIterator[None]:
    task = asyncio.create_task(those.follow())
    try:
        async with asyncio.timeout(LIMIT_S):
            yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def holds(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.002)


async def looks(number: int = 20) -> None:
    """Time enough for so many looks."""
    await asyncio.sleep(number * run_scheduler._POLL_S)


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]
