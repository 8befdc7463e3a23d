"""Conducting rounds: introductions, exchange, retraining, gate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from safetensors import SafetensorError

from f2l_fed import events
from f2l_fed.core.locks import locked
from f2l_fed.errors import F2LError, ReleaseError
from f2l_fed.events import EventLog
from server.federation.folder import Federation
from server.rounds import state as round_state
from server.rounds import state_files
from server.rounds.backend import Backend
from server.rounds.check_in import CheckIn
from server.rounds.exchange import Exchange
from server.rounds.ingest import Ingest
from server.rounds.messaging import Messenger, deadline
from server.rounds.run_cache import RunCache
from server.rounds.screening import Screening
from server.rounds.state import Interrupted, RoundState, is_passing


@dataclass(frozen=True, slots=True, kw_only=True)
class Coordinator:
    """Everything a round needs.

    Args:
        federation: The folder.
        talk: The way to the sites.
        engine: The way to the cluster.
        log: Where events go.
        names: Looks up the names that are bound to nodes' keys. Where there are any, nobody else is
            asked; without, as in a simulation, nodes go by the name they give.
    """

    federation: Federation
    talk: Messenger
    engine: Backend
    log: EventLog
    names: Callable[[], Mapping[int, str]] = dict

    def run(self, count: int, expected_sites: int) -> list[RoundState]:
        """Conducts rounds, after finishing one that was interrupted.

        Args:
            count: How many new rounds.
            expected_sites: Number of sites to wait for before the first.

        Raises:
            UsageError: If another process conducts rounds of this federation.
            Interrupted: If a round was; the next run goes on with it.
        """
        lock = self.federation.root / "rounds" / "lock"
        told = "another process conducts rounds of this federation"
        with locked(lock, wait=False, what=told), _resumable():
            spool = RunCache.beside(self.federation.root)
            states = self._run(count, expected_sites, spool)
            spool.clear()
        return states

    def _run(self, count: int, expected_sites: int, spool: RunCache) -> list[RoundState]:
        releases = self.federation.releases
        intake = Ingest(
            federation=self.federation,
            spool=spool,
            screening=Screening(self.federation, spool.screened),
            log=self.log,
        )
        attendance = CheckIn(
            federation=self.federation,
            talk=self.talk,
            log=self.log,
            spool=spool,
            names=self.names,
            late=intake.take_late,
        )
        known, states = state_files.load_states(self.federation.root / "rounds"), []
        last = self.federation.last_round()
        interrupted = known[-1] if known and known[-1].step not in ("done", "failed") else None
        if interrupted is not None and interrupted.step != "exchange":
            # What is left of it needs no sites.
            states.append(self._conduct(interrupted, intake, attendance))
            interrupted = None
        if interrupted is not None or count:
            self.talk.nodes(expected_sites)
        if interrupted is not None:
            states.append(self._conduct(interrupted, intake, attendance))
        for number in range(last + 1, last + 1 + count):
            promoted = releases.promoted()
            anchored = self.federation.anchor(promoted)
            attendance.unheard.clear()
            over = deadline(self.federation.config.round.deadline_s)
            sites = len(attendance.call(self.talk.connected(), anchored, over))
            sites += len(attendance.unheard)
            state = round_state.begun(number, promoted.id if promoted else "", sites)
            self.log.emit(events.ROUND_STARTED, round=number, sites=sites)
            states.append(self._conduct(state, intake, attendance))
            if states[-1].step == "failed":
                break
        return states

    def _conduct(self, state: RoundState, intake: Ingest, attendance: CheckIn) -> RoundState:
        """Takes a round from its step to its end; the state is saved after every step."""
        collection = Exchange(
            talk=self.talk, engine=self.engine, intake=intake, attendance=attendance
        )
        steps: dict[str, Callable[[RoundState], RoundState]] = {
            "exchange": collection.exchange,
            "retrain": self._retrain,
            "gate": self._judge,
        }
        folder = self.federation.root / "rounds"
        with state_files.lock_states(folder):
            if aborted := self._aborted(state):
                return aborted
            state_files.save_state(folder, state)
        while state.step in steps:
            try:
                state = steps[state.step](state)
            except Interrupted:
                # What has come in is in the zoo, and the state says where to go on.
                raise
            except F2LError as error:
                if is_passing(error):
                    raise
                state = round_state.failed(state, str(error))
            with state_files.lock_states(folder):
                if aborted := self._aborted(state):
                    return aborted
                state_files.save_state(folder, state)
        if state.step == "failed":
            self.log.emit(events.ROUND_FAILED, round=state.number, reason=state.reason)
        else:
            self.log.emit(
                events.ROUND_FINISHED,
                round=state.number,
                accepted=len(state.accepted),
                quarantined=state.quarantined,
                rejected=len(state.rejected) - state.quarantined,
                accuracy_before=state.accuracy_before,
                accuracy_after=state.accuracy_after,
                seconds=round(sum(state.seconds.values()), 2),
            )
        return state

    def _aborted(self, state: RoundState) -> RoundState | None:
        """The round as it was stored meanwhile, if that ended it."""
        stored = state_files.find_state(self.federation.root / "rounds", state.number)
        return stored if stored is not None and stored.step == "failed" else None

    def _retrain(self, state: RoundState) -> RoundState:
        began = time.monotonic()
        id, commit = f"{state.number:05d}", self.federation.zoo.snapshot().commit
        release = self.federation.releases.find(id)
        # One that an interrupted step has left is as good as a new one, if nothing came in since;
        # and one that sites have got may not be replaced by another of its name.
        if release is None or (release.state == "candidate" and release.snapshot != commit):
            self.log.emit(events.RETRAINING_STARTED, round=state.number)
            release = self.engine.retrain(id, commit)
        seconds = round(time.monotonic() - began, 3)
        self.log.emit(
            events.RETRAINING_FINISHED,
            round=state.number,
            seconds=seconds,
            left_out=dict(release.left_out),
            **release.figures,
        )
        return round_state.retrained(state, release.id, seconds)

    def _judge(self, state: RoundState) -> RoundState:
        registry = self.federation.releases
        release = registry.read(state.release)
        if release.state != "candidate":
            # The gate, or an administrator, has decided before the state could be saved.
            return round_state.judged(state, release.reasons)
        reasons = self.engine.objections(release.id)
        folder = self.federation.root / "rounds"
        # With the promotion, so that it is either aborted or done.
        with state_files.lock_states(folder):
            if aborted := self._aborted(state):
                return aborted
            if not reasons:
                try:
                    registry.promote(release.id, judged=release)
                except ReleaseError as error:
                    reasons = (str(error),)
            if reasons and (held := registry.hold(release.id, reasons)).state != "candidate":
                # An administrator has decided while the gate was at work.
                state = round_state.judged(state, held.reasons)
                state_files.save_state(folder, state)
                return state
            state = round_state.judged(state, reasons)
            state_files.save_state(folder, state)
        if reasons:
            self.log.emit(events.RELEASE_REJECTED, release=release.id, reasons=list(reasons))
        else:
            self.log.emit(events.RELEASE_PROMOTED, release=release.id)
        return state


@contextmanager
def _resumable() -> Iterator[None]:
    """What the disk refuses interrupts a round; it goes on at its step once there is room."""
    try:
        yield
    except (OSError, SafetensorError, F2LError) as error:
        if not is_passing(error):
            raise
        raise Interrupted(
            "a file can't be read or written",
            got=str(error).rstrip("."),
            remedy="Make room, or mend what is wrong, and go on with the round; what was accepted "
            "is in the zoo.",
        ) from error
