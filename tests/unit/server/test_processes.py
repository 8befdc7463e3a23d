"""Child processes that can't be started at first."""

from __future__ import annotations

import asyncio
from pathlib import Path

from server.processes import ManagedProcess, keep_running
from tests.support.waiting import PATIENCE_S


def test_a_child_that_can_not_be_started_is_started_later(tmp_path: Path) -> None:
    program, ready = tmp_path / "program", asyncio.Event()
    child = ManagedProcess(
        name="child",
        command=[str(program)],
        environment={},
        folder=tmp_path,
        ready=_set(ready),
        gone=lambda: None,
    )

    async def play() -> None:
        keeping = asyncio.create_task(keep_running(child))
        await asyncio.sleep(0.2)
        assert not keeping.done()
        program.write_text("#!/bin/sh\nexec sleep 60\n")
        program.chmod(0o755)
        async with asyncio.timeout(PATIENCE_S):
            await ready.wait()
        keeping.cancel()
        await asyncio.wait({keeping})

    asyncio.run(play())


def _set(event: asyncio.Event):
    async def ready() -> None:
        event.set()

    return ready
