"""Rounds as runs on the own SuperLink: started, followed, aborted, and taken up after a restart.

Every round is one run. What is still wanted stands in ``flower/wanted.json``, so that a server
that was restarted in between finishes the round and goes on without anyone's help.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path

from f2l_fed import events
from f2l_fed.config import from_mapping
from f2l_fed.errors import F2LError, UsageError
from f2l_fed.events import EventLog
from f2l_fed.files import write_atomically
from server import rounds
from server.superlink import Run, SuperLink
from server.wanted import Wanted

_LOG = logging.getLogger("f2l.runs")
_POLL_S = 1.0
_ERROR = re.compile(r"^(?:\S*\.)?(?:\w+Error|\w+Refusal|\w+Mismatch): (.+)$", re.M)


class Runs:
    """The runs of a federation, one at a time.

    Args:
        root: The federation's folder.
        link: The SuperLink, or None while there is none.
    """

    def __init__(self, root: Path, link: Callable[[], SuperLink | None]) -> None:
        self._root, self._link = root, link
        self._path = root / "flower" / "wanted.json"
        self._events = EventLog(path=root / "events.jsonl", clock=time.time)
        self._lock = asyncio.Lock()

    def wanted(self) -> Wanted:
        """What is being done."""
        try:
            values = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return Wanted()
        except (OSError, ValueError):
            _LOG.warning("%s can't be read and is left aside", self._path)
            return Wanted()
        return from_mapping(Wanted, values, where=str(self._path))

    async def start(self, by: str, *, count: int, sites: int) -> Wanted:
        """Starts rounds.

        Args:
            by: Who asks.
            count: How many.
            sites: Sites to wait for before each.

        Raises:
            UsageError: If a round is under way.
        """
        async with self._lock:
            self._require_idle()
            # An unfinished round comes first: Flower's run takes it up before a new one.
            return await self._launch(Wanted(by=by, sites=sites, remaining=count), 1)

    async def resume(self, by: str, *, sites: int) -> Wanted:
        """Takes up a round that was interrupted.

        Raises:
            UsageError: If there is none, or one is under way.
        """
        async with self._lock:
            self._require_idle()
            state = self._unfinished()
            if state is None:
                raise UsageError("no round was interrupted", remedy="Start a new one.")
            return await self._launch(Wanted(by=by, sites=sites or state.sites), 0)

    async def abort(self, by: str) -> Wanted:
        """Ends the round that is under way or interrupted, for good.

        What sites have sent so far is in the zoo and counts for the next retraining.

        Raises:
            UsageError: If there is none.
        """
        async with self._lock:
            wanted, link, state = self.wanted(), self._link(), self._unfinished()
            if not wanted.run and state is None:
                raise UsageError("no round is under way")
            if wanted.run and link is not None:
                await asyncio.to_thread(link.stop, wanted.run)
            reason = f"aborted by {by}"
            if state := self._unfinished():
                rounds.save(self._root / "rounds", rounds.failed(state, reason))
                self._events.emit(events.ROUND_FAILED, round=state.number, reason=reason)
            self._events.emit(
                events.RUN_ENDED, run=str(wanted.run), outcome="aborted", reason=reason
            )
            return self._note(Wanted(by=by, reason=reason))

    async def take_up(self) -> None:
        """After a restart: the run that was under way is gone, its round goes on."""
        async with self._lock:
            wanted = self.wanted()
            if not wanted.run:
                return
            self._events.emit(
                events.RUN_ENDED,
                run=str(wanted.run),
                outcome="lost",
                reason="the server was restarted",
            )
            if self._unfinished() is not None:
                await self._launch(wanted, 0)
            elif wanted.remaining or not self._began():
                await self._launch(
                    dataclasses.replace(wanted, remaining=max(wanted.remaining, 1)), 1
                )
            else:
                self._note(dataclasses.replace(wanted, run=0))

    async def follow(self) -> None:
        """Watches the present run until cancelled, and starts the next one that is wanted."""
        while True:
            await asyncio.sleep(_POLL_S)
            try:
                async with self._lock:
                    await self._look()
            except F2LError as error:
                _LOG.warning("%s", error)
            except OSError as error:
                _LOG.error("the run can't be followed: %s", error)

    async def _look(self) -> None:
        wanted, link = self.wanted(), self._link()
        if not wanted.run or link is None:
            return
        run = await asyncio.to_thread(link.run, wanted.run)
        if not run.finished:
            return
        reason = "" if run.outcome == "completed" else await self._why(link, run)
        last = self._last()
        if not reason and last is not None and last.step == "failed":
            reason = last.reason
        self._events.emit(events.RUN_ENDED, run=str(run.id), outcome=run.outcome, reason=reason)
        after = dataclasses.replace(wanted, run=0, reason=reason)
        if not reason and wanted.remaining:
            await self._launch(after, 1)
        else:
            self._note(dataclasses.replace(after, remaining=0))

    async def _launch(self, wanted: Wanted, count: int) -> Wanted:
        link = self._link()
        if link is None:
            raise UsageError("the SuperLink is not up yet", remedy="Try again in a moment.")
        settings: dict[str, str | int] = {
            "workdir": str(self._root),
            "rounds": count,
            "sites": wanted.sites,
        }
        number = await asyncio.to_thread(link.start, settings)
        after = dataclasses.replace(
            wanted, run=number, remaining=max(wanted.remaining - count, 0), reason=""
        )
        self._events.emit(events.RUN_STARTED, run=str(number), by=wanted.by, sites=wanted.sites)
        return self._note(after)

    async def _why(self, link: SuperLink, run: Run) -> str:
        """The sentence of the error that ended a run, from the end of its log."""
        try:
            found = _ERROR.findall(await asyncio.to_thread(link.log, run.id))
        except F2LError:
            found = []
        return found[-1] if found else run.details or f"the run {run.outcome}"

    def _began(self) -> bool:
        """Whether the lost run had already saved its round."""
        last = self._last()
        if last is None:
            return False
        path = self._root / "rounds" / f"{last.number:05d}.json"
        return path.stat().st_mtime >= self._path.stat().st_mtime

    def _require_idle(self) -> None:
        if self.wanted().run:
            raise UsageError(
                "a round is under way", remedy="Wait for it, or abort it with round abort."
            )

    def _last(self) -> rounds.RoundState | None:
        states = rounds.load_all(self._root / "rounds")
        return states[-1] if states else None

    def _unfinished(self) -> rounds.RoundState | None:
        last = self._last()
        return last if last and last.step not in ("done", "failed") else None

    def _note(self, wanted: Wanted) -> Wanted:
        write_atomically(self._path, json.dumps(dataclasses.asdict(wanted), indent=1) + "\n")
        return wanted
