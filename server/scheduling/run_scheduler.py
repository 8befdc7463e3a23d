"""Rounds as runs on the own SuperLink: started, followed, aborted, and taken up after a restart.

Every round is one run. What is still wanted stands in ``flower/wanted.json`` before it is done, so
that a server that was restarted in between finishes the round and goes on without anyone's help.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from f2l_fed import events
from f2l_fed.core.locks import locked
from f2l_fed.errors import F2LError, RoundError, UsageError
from f2l_fed.events import EventLog
from server.federation.folder import Federation
from server.rounds import state as round_state
from server.rounds import state_files
from server.scheduling.run_plan import RequestedRounds, RunPlan
from server.superlink.client import Run, SuperLink

_LOG = logging.getLogger("f2l.runs")
_POLL_S = 1.0
_ENDING_S = 20.0
"""Longest wait for a run that was stopped; its app may hear of it as late, and a call has 30 s."""

_ERROR = re.compile(
    r"^(?:\S*\.)?(?:\w+Error|\w+Refusal|\w+Mismatch|RecordErased|Interrupted): (.+)$", re.M
)


class RunScheduler:
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

    def wanted(self) -> RequestedRounds:
        """What is being done."""
        return self._plan().told()

    async def start(self, by: str, *, count: int, sites: int) -> RequestedRounds:
        """Starts rounds.

        Args:
            by: Who asks.
            count: How many new ones; an unfinished round comes first and is not one of them.
            sites: Sites to wait for before each.

        Raises:
            UsageError: If a round is under way, or the last run does not end in time.
        """
        async with self._lock:
            self._require_idle()
            await self._until_free()
            plan = RunPlan(by=by, sites=sites, until=await self._number() + count)
            return await _to_its_end(self._begin(plan))

    async def resume(self, by: str, *, sites: int) -> RequestedRounds:
        """Takes up a round that was interrupted.

        Raises:
            UsageError: If there is none, or one is under way.
        """
        async with self._lock:
            self._require_idle()
            state = self._unfinished()
            if state is None:
                raise UsageError("no round was interrupted", remedy="Start a new one.")
            await self._until_free()
            plan = RunPlan(by=by, sites=sites or state.sites, until=state.number)
            return await _to_its_end(self._begin(plan))

    async def abort(self, by: str) -> RequestedRounds:
        """Ends the round that is under way or interrupted, for good.

        What sites have sent so far is in the zoo and counts for the next retraining. The app of
        the run hears of it from the round's file, or at its next word with the SuperLink.

        Raises:
            UsageError: If there is none.
        """
        async with self._lock:
            return await _to_its_end(self._abort(by))

    async def take_up(self) -> None:
        """After a restart: the run that was under way is gone; what it has left is due again."""
        async with self._lock:
            plan = self._plan()
            if plan.idle:
                return
            (await self._after(plan)).note(self._path)
            if not plan.due:
                self._emit_end(plan.run, "lost", "the server was restarted")

    async def follow(self) -> None:
        """Watches the present run until cancelled, and starts each one that is due."""
        while True:
            await asyncio.sleep(_POLL_S)
            try:
                async with self._lock:
                    await self._look()
            except F2LError as error:
                _LOG.warning("%s", error)
            except Exception as error:
                # Nobody else looks after it: it goes on, whatever was wrong.
                known = isinstance(error, OSError)
                _LOG.error("the run can't be followed: %s", error, exc_info=not known)

    async def _look(self) -> None:
        plan, link = self._plan(), self._link()
        if plan.idle or link is None:
            return
        if not plan.due:
            run = await asyncio.to_thread(link.run, plan.run)
            if not run.finished:
                return
            plan = await self._ended(plan, link, run)
        if plan.due:
            self._require_free()
            await self._launch(plan)

    async def _ended(self, plan: RunPlan, link: SuperLink, run: Run) -> RunPlan:
        """Notes what is wanted after a run that is over."""
        reason = "" if run.outcome == "completed" else await self._why(link, run)
        last = self._last()
        if not reason and last is not None and last.step == "failed":
            reason = last.reason
        after = await self._after(plan, reason)
        after.note(self._path)
        self._emit_end(run.id, run.outcome, reason)
        return after

    async def _after(self, plan: RunPlan, reason: str = "") -> RunPlan:
        """What is wanted after a run: the rest, unless there is a reason against it."""
        left = plan.until > await self._number() or self._unfinished() is not None
        if left and not reason:
            return dataclasses.replace(plan, due=True)
        return RunPlan(by=plan.by, sites=plan.sites, reason=reason)

    async def _begin(self, plan: RunPlan) -> RequestedRounds:
        """Launches what was asked for just now; after an error nothing of it is left."""
        try:
            return await self._launch(plan)
        except F2LError:
            RunPlan(by=plan.by).note(self._path)
            raise

    async def _launch(self, plan: RunPlan) -> RequestedRounds:
        """Starts the next run: it finishes a round that is unfinished, and conducts a new one."""
        link = self._link()
        if link is None:
            raise UsageError("the SuperLink is not up yet", remedy="Try again in a moment.")
        left = max(plan.until - await self._number(), 0)
        count = min(left, 1)
        plan = dataclasses.replace(plan, remaining=left - count, due=True, reason="")
        # Before the run: one that can't be noted must not be started, nor one be forgotten.
        plan.note(self._path)
        settings: dict[str, str | int] = {
            "workdir": str(self._root),
            "rounds": count,
            "sites": plan.sites,
        }
        number = await asyncio.to_thread(link.start, settings)
        try:
            dataclasses.replace(plan, run=number, due=False).note(self._path)
        except RoundError:
            await asyncio.to_thread(link.stop, number)
            raise
        self._events.emit(events.RUN_STARTED, run=str(number), by=plan.by, sites=plan.sites)
        return self.wanted()

    async def _abort(self, by: str) -> RequestedRounds:
        plan, link, before = self._plan(), self._link(), self._unfinished()
        if plan.idle and before is None:
            raise UsageError("no round is under way")
        if plan.run and not plan.due and link is not None:
            await asyncio.to_thread(link.stop, plan.run)
        reason = f"aborted by {by}"
        # Whoever promotes its release meanwhile may take seconds.
        state = await asyncio.to_thread(self._fail, reason)
        if plan.idle and state is None:
            raise UsageError("the round has just ended")
        if state is None and before is not None:
            reason += f", when round {before.number} had just ended"
        if state is not None:
            self._events.emit(events.ROUND_FAILED, round=state.number, reason=reason)
        RunPlan(by=by, reason=reason).note(self._path)
        self._emit_end(plan.run, "aborted", reason)
        return self.wanted()

    def _fail(self, reason: str) -> round_state.RoundState | None:
        """Ends the round that is unfinished; None if there is none by now."""
        folder = self._root / "rounds"
        with state_files.lock_states(folder):
            if state := self._unfinished():
                state_files.save_state(folder, round_state.failed(state, reason))
            return state

    async def _why(self, link: SuperLink, run: Run) -> str:
        """The sentence of the error that ended a run, from the end of its log."""
        try:
            found = _ERROR.findall(await asyncio.to_thread(link.log, run.id))
        except F2LError:
            found = []
        return found[-1] if found else run.details or f"the run {run.outcome}"

    async def _until_free(self) -> None:
        """Waits until a run that was stopped has let go of the rounds, but not for ever."""
        end = time.monotonic() + _ENDING_S
        while True:
            try:
                return self._require_free()
            except UsageError:
                if time.monotonic() > end:
                    raise
            await asyncio.sleep(_POLL_S)

    def _require_free(self) -> None:
        try:
            with locked(self._root / "rounds" / "lock", wait=False):
                pass
        except UsageError as error:
            raise UsageError(
                "the last run is still ending", remedy="Try again in some seconds."
            ) from error

    def _require_idle(self) -> None:
        if not self._plan().idle:
            raise UsageError(
                "a round is under way", remedy="Wait for it, or abort it with round abort."
            )

    def _last(self) -> round_state.RoundState | None:
        states = state_files.load_states(self._root / "rounds")
        return states[-1] if states else None

    async def _number(self) -> int:
        """Of the last round; 0 before the first."""
        try:
            return await asyncio.to_thread(lambda: Federation.open(self._root).last_round())
        except F2LError:
            # A zoo that is away keeps nobody from looking; the files say it, but where one is lost.
            last = self._last()
            return last.number if last else 0

    def _unfinished(self) -> round_state.RoundState | None:
        last = self._last()
        return last if last and last.step not in ("done", "failed") else None

    def _plan(self) -> RunPlan:
        return RunPlan.read(self._path)

    def _emit_end(self, run: int, outcome: str, reason: str) -> None:
        self._events.emit(events.RUN_ENDED, run=str(run), outcome=outcome, reason=reason)


async def _to_its_end(work: Coroutine[Any, Any, RequestedRounds]) -> RequestedRounds:
    """Sees something through though its caller has gone: a thread goes on when it is cancelled."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        # The lock is held until then.
        await asyncio.wait({task})
        raise
