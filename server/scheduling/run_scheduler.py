"""The scheduler of rounds as runs on the federation's own SuperLink.

Every round is one run. The run plan stands in ``flower/wanted.json`` before it is carried out, so
that a server that was restarted in between finishes the round and goes on without anyone's help.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
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
from server.rounds.run_end import RunEnd, run_end_path
from server.scheduling.run_plan import RequestedRounds, RunPlan
from server.superlink.client import Run, SuperLink

_LOG = logging.getLogger("f2l.runs")
_POLL_S = 1.0
_ENDING_S = 20.0
"""The longest wait for a stopped run; its app may hear of it that late, and a call has 30 s."""


class RunScheduler:
    """The scheduler: starts, follows and aborts the runs of a federation, one at a time.

    Args:
        root: The federation's folder.
        link: The SuperLink, or None while there is none.
    """

    def __init__(self, root: Path, link: Callable[[], SuperLink | None]) -> None:
        self._root, self._link = root, link
        self._path = root / "flower" / "wanted.json"
        self._events = EventLog(path=root / "events.jsonl", clock=time.time)
        self._lock = asyncio.Lock()

    def requested(self) -> RequestedRounds:
        """The rounds that were requested and are not done yet."""
        return self._plan().requested()

    async def start(self, by: str, *, count: int, sites: int) -> RequestedRounds:
        """Starts rounds.

        Args:
            by: Who requests them.
            count: Number of new rounds; an unfinished round comes first and is not one of them.
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
        """Goes on with an interrupted round.

        Args:
            by: Who requests it.
            sites: Sites to wait for; 0 for as many as the round had asked.

        Raises:
            UsageError: If no round was interrupted, or one is under way.
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

        The updates so far are in the zoo and count for the next retraining. The app of the run
        learns of the abort from the round's file, or at its next call of the SuperLink.

        Args:
            by: Who aborts it.

        Raises:
            UsageError: If there is no such round.
        """
        async with self._lock:
            return await _to_its_end(self._abort(by))

    async def take_up(self) -> None:
        """Goes on after a restart: the run under way is lost, and its unfinished rounds are due."""
        async with self._lock:
            plan = self._plan()
            if plan.idle:
                return
            (await self._after(plan)).save(self._path)
            if not plan.due:
                self._emit_end(plan.run, "lost", "the server was restarted")

    async def follow(self) -> None:
        """Follows the present run until cancelled, and starts each run that is due."""
        while True:
            await asyncio.sleep(_POLL_S)
            try:
                async with self._lock:
                    await self._look()
            except F2LError as error:
                _LOG.warning("%s", error)
            except Exception as error:
                # Nothing else follows the run: the loop goes on after any error.
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
            plan = await self._ended(plan, run)
        if plan.due:
            self._require_free()
            await self._launch(plan)

    async def _ended(self, plan: RunPlan, run: Run) -> RunPlan:
        """Saves the plan after a run that is over."""
        reason = "" if run.outcome == "completed" else self._reason(run)
        last = self._last()
        if not reason and last is not None and last.step == "failed":
            reason = last.reason
        after = await self._after(plan, reason)
        after.save(self._path)
        self._emit_end(run.id, run.outcome, reason)
        return after

    async def _after(self, plan: RunPlan, reason: str = "") -> RunPlan:
        """The plan after a run: the rest, unless there is a reason against it."""
        left = plan.until > await self._number() or self._unfinished() is not None
        if left and not reason:
            return dataclasses.replace(plan, due=True)
        return RunPlan(by=plan.by, sites=plan.sites, reason=reason)

    async def _begin(self, plan: RunPlan) -> RequestedRounds:
        """Launches a new plan; after an error nothing of it is left."""
        try:
            return await self._launch(plan)
        except F2LError:
            RunPlan(by=plan.by).save(self._path)
            raise

    async def _launch(self, plan: RunPlan) -> RequestedRounds:
        """Starts the next run, which finishes an unfinished round and conducts a new one."""
        link = self._link()
        if link is None:
            raise UsageError("the SuperLink is not up yet", remedy="Try again in a moment.")
        left = max(plan.until - await self._number(), 0)
        count = min(left, 1)
        plan = dataclasses.replace(plan, remaining=left - count, due=True, reason="")
        # Saved before the run: a run that can't be saved must not be started, nor be forgotten.
        plan.save(self._path)
        settings: dict[str, str | int] = {
            "workdir": str(self._root),
            "rounds": count,
            "sites": plan.sites,
        }
        number = await asyncio.to_thread(link.start, settings)
        try:
            dataclasses.replace(plan, run=number, due=False).save(self._path)
        except RoundError:
            await asyncio.to_thread(link.stop, number)
            raise
        self._events.emit(events.RUN_STARTED, run=str(number), by=plan.by, sites=plan.sites)
        return self.requested()

    async def _abort(self, by: str) -> RequestedRounds:
        plan, link, before = self._plan(), self._link(), self._unfinished()
        if plan.idle and before is None:
            raise UsageError("no round is under way")
        if plan.run and not plan.due and link is not None:
            await asyncio.to_thread(link.stop, plan.run)
        reason = f"aborted by {by}"
        # A promotion under way may hold the lock for seconds.
        state = await asyncio.to_thread(self._fail, reason)
        if plan.idle and state is None:
            raise UsageError("the round has just ended")
        if state is None and before is not None:
            reason += f", when round {before.number} had just ended"
        if state is not None:
            self._events.emit(events.ROUND_FAILED, round=state.number, reason=reason)
        RunPlan(by=by, reason=reason).save(self._path)
        self._emit_end(plan.run, "aborted", reason)
        return self.requested()

    def _fail(self, reason: str) -> round_state.RoundState | None:
        """Ends the unfinished round; None if there is none by now."""
        folder = self._root / "rounds"
        with state_files.lock_states(folder):
            if state := self._unfinished():
                state_files.save_state(folder, round_state.failed(state, reason))
            return state

    def _reason(self, run: Run) -> str:
        """The reason that a run did not complete: its app's record, or else Flower's details."""
        end = RunEnd.read(run_end_path(self._root), str(run.id))
        recorded = end.reason if end is not None else ""
        return recorded or run.details or f"the run {run.outcome}"

    async def _until_free(self) -> None:
        """Waits a limited time until a stopped run has released the lock of the rounds."""
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
        """The number of the last round; 0 before the first."""
        try:
            return await asyncio.to_thread(lambda: Federation.open(self._root).last_round())
        except F2LError:
            # Without the zoo the files of the rounds say it, unless one of them is lost.
            last = self._last()
            return last.number if last else 0

    def _unfinished(self) -> round_state.RoundState | None:
        last = self._last()
        return last if last and not last.is_final else None

    def _plan(self) -> RunPlan:
        return RunPlan.read(self._path)

    def _emit_end(self, run: int, outcome: str, reason: str) -> None:
        self._events.emit(events.RUN_ENDED, run=str(run), outcome=outcome, reason=reason)


async def _to_its_end(work: Coroutine[Any, Any, RequestedRounds]) -> RequestedRounds:
    """Completes work although its caller is cancelled: its threads go on in any case."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        # The lock is held until then.
        await asyncio.wait({task})
        raise
