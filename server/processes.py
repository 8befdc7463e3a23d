"""Child processes of the server: started again when they end, and all ended with it."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path

_LOG = logging.getLogger("f2l.server")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_LOG_BYTES = 2**22
_GRACE_S = 10.0
_FIRST_S, _LONGEST_S, _STEADY_S = 0.5, 30.0, 60.0
_LONGEST_LINE = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedProcess:
    """A process to keep running.

    Args:
        name: Its log is ``name``.log.
        command: Its command line, without secrets.
        environment: All of its environment.
        folder: Its working folder, where the log is too.
        ready: Called after each start; the process is ended and started again if it raises.
        gone: Called after each end.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    ready: Callable[[], Awaitable[None]]
    gone: Callable[[], None]


async def keep_running(child: ManagedProcess) -> None:
    """Runs a child, and restarts it with growing waits, until it is cancelled."""
    log = logging.Logger(child.name)
    handler = RotatingFileHandler(
        child.folder / f"{child.name}.log", maxBytes=_LOG_BYTES, backupCount=2, encoding="utf-8"
    )
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    failures = 0
    try:
        while True:
            began = time.monotonic()
            try:
                end = await _run_once(child, log)
            except OSError as error:
                # No process, file or memory is free at present.
                end = f"not started ({error})"
            failures = 1 if time.monotonic() - began >= _STEADY_S else failures + 1
            wait_s = min(_FIRST_S * 2.0 ** min(failures - 1, 30), _LONGEST_S)
            _LOG.warning("%s ended: %s; it is started again in %g s", child.name, end, wait_s)
            await asyncio.sleep(wait_s)
    finally:
        handler.close()


async def _run_once(child: ManagedProcess, log: logging.Logger) -> str:
    process = await asyncio.create_subprocess_exec(
        *child.command,
        cwd=child.folder,
        env=dict(child.environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        limit=_LONGEST_LINE,
    )
    last_line = [""]

    async def listen() -> None:
        if process.stdout is None:
            return
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:
                continue  # a line beyond the limit was dropped
            if not line:
                return
            if words := _COLOURS.sub("", line.decode("utf-8", "replace")).strip():
                log.info("%s", words)
                last_line[0] = words

    listening = asyncio.create_task(listen())
    readying = asyncio.ensure_future(child.ready())
    waiting = asyncio.create_task(process.wait())
    problem = ""
    try:
        done, _ = await asyncio.wait({readying, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if readying in done and readying.exception() is not None:
            problem = f"not ready ({readying.exception()})"
        else:
            await waiting
    finally:
        for task in (readying, waiting):
            task.cancel()
        child.gone()
        await _end_group(process)
        with suppress(asyncio.TimeoutError, TimeoutError):
            await asyncio.wait_for(listening, 2.0)
    code = process.returncode or 0
    cause = problem or (f"signal {-code}" if code < 0 else f"exit code {code}")
    return f"{cause}, after saying: {last_line[0][:300]}" if last_line[0] else cause


async def _end_group(process: asyncio.subprocess.Process) -> None:
    for number, patience_s in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, _GRACE_S)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), patience_s)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 0)
            if number == signal.SIGTERM and process.returncode is not None:
                await asyncio.sleep(0.5)
            continue
        break


def strays(mark: str) -> list[int]:
    """Ids of this user's other processes that have a mark in their environment.

    Args:
        mark: ``NAME=value``.
    """
    variable, found = os.fsencode(mark), []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile, or another user's
            if variable in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return [pid for pid in found if pid != os.getpid()]


def end_strays(mark: str, *, grace_s: float = _GRACE_S) -> None:
    """Ends the processes that a killed server has left, or that have detached from it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in strays(mark):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        end = time.monotonic() + grace_s
        while strays(mark) and time.monotonic() < end:
            time.sleep(0.1)
