"""The coordinator of rounds: exchange, retraining and gate, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from safetensors import SafetensorError

from f2l_fed import events
from f2l_fed.core.locks import locked
from f2l_fed.errors import F2LError, ReleaseError
from f2l_fed.events import EventLog
from server.federation.folder import Federation
from server.rounds import state as round_state
from server.rounds import state_files
from server.rounds.backend import Backend
from server.rounds.exchange import Exchange
from server.rounds.messaging import Messenger
from server.rounds.protocols import SiteProtocols, UnregisteredSites
from server.rounds.run_cache import RunCache
from server.rounds.state import Interrupted, RoundState, is_transient


class Coordinator:
    """The coordinator: takes rounds of a federation from step to step.

    Args:
        federation: The folder.
        messenger: The way to the sites.
        backend: The way to the cluster.
        log: Where events go.
        names: Looks up the names that are bound to nodes' keys. Where there are any, nobody else is
            asked; without, as in a simulation, nodes go by the name they give.
        protocols: The versions of the wire protocol that sites speak.
    """

    def __init__(
        self,
        *,
        federation: Federation,
        messenger: Messenger,
        backend: Backend,
        log: EventLog,
        names: Callable[[], Mapping[int, str]] = dict,
        protocols: SiteProtocols | None = None,
    ) -> None:
        self._federation, self._messenger, self._backend = federation, messenger, backend
        self._log, self._names = log, names
        self._protocols = protocols or UnregisteredSites()
        self._folder = federation.root / "rounds"

    def run(self, count: int, expected_sites: int) -> list[RoundState]:
        """Conducts rounds, after finishing an interrupted one.

        Args:
            count: Number of new rounds.
            expected_sites: Number of sites to wait for before the first.

        Raises:
            UsageError: If another process conducts rounds of this federation.
            Interrupted: If a round was interrupted; the next run goes on with it.
        """
        told = "another process conducts rounds of this federation"
        with locked(self._folder / "lock", wait=False, what=told), _resumable():
            run_cache = RunCache.beside(self._federation.root)
            exchange = Exchange.open(
                self._federation,
                messenger=self._messenger,
                backend=self._backend,
                log=self._log,
                run_cache=run_cache,
                names=self._names,
                protocols=self._protocols,
            )
            states = self._run(count, expected_sites, exchange)
            run_cache.clear()
        return states

    def _run(self, count: int, expected_sites: int, exchange: Exchange) -> list[RoundState]:
        known, states = state_files.load_states(self._folder), []
        last = self._federation.last_round()
        interrupted = known[-1] if known and not known[-1].is_final else None
        if interrupted is not None and interrupted.step != "exchange":
            # The steps that are left need no sites.
            states.append(self._conduct(interrupted, exchange))
            interrupted = None
        if interrupted is not None or count:
            self._messenger.wait_for_nodes(expected_sites)
        if interrupted is not None:
            states.append(self._conduct(interrupted, exchange))
        for number in range(last + 1, last + 1 + count):
            states.append(self._conduct(exchange.begin(number), exchange))
            if states[-1].step == "failed":
                break
        return states

    def _conduct(self, state: RoundState, exchange: Exchange) -> RoundState:
        """Takes a round from its step to its end; the state is saved after every step."""
        steps: dict[str, Callable[[RoundState], RoundState]] = {
            "exchange": exchange.run,
            "retrain": self._retrain,
            "gate": self._judge,
        }
        with state_files.lock_states(self._folder):
            if aborted := self._aborted(state):
                return aborted
            state_files.save_state(self._folder, state)
        while state.step in steps:
            try:
                state = steps[state.step](state)
            except Interrupted:
                # The updates are in the zoo, and the state says where to go on.
                raise
            except F2LError as error:
                if is_transient(error):
                    raise
                state = round_state.failed(state, str(error), self._federation.config.round.minimum)
            with state_files.lock_states(self._folder):
                if aborted := self._aborted(state):
                    return aborted
                state_files.save_state(self._folder, state)
        if state.step == "failed":
            self._log.emit(events.ROUND_FAILED, round=state.number, reason=state.reason)
        else:
            self._log.emit(
                events.ROUND_FINISHED,
                round=state.number,
                accepted=len(state.accepted),
                quarantined=len(state.quarantined),
                rejected=len(state.rejected),
                accuracy_before=state.accuracy_before,
                accuracy_after=state.accuracy_after,
                seconds=round(sum(state.seconds.values()), 2),
            )
        return state

    def _aborted(self, state: RoundState) -> RoundState | None:
        """The stored state of the round, if somebody else has ended it meanwhile."""
        stored = state_files.find_state(self._folder, state.number)
        return stored if stored is not None and stored.step == "failed" else None

    def _retrain(self, state: RoundState) -> RoundState:
        began = time.monotonic()
        id, commit = f"{state.number:05d}", self._federation.zoo.snapshot().commit
        release = self._federation.releases.find(id)
        # A candidate of an interrupted step is as good as a new one, if nothing came in since; and
        # a release that sites have got may not be replaced by another of its name.
        if release is None or (release.state == "candidate" and release.snapshot != commit):
            self._log.emit(events.RETRAINING_STARTED, round=state.number)
            release = self._backend.retrain(id, commit)
        seconds = round(time.monotonic() - began, 3)
        self._log.emit(
            events.RETRAINING_FINISHED,
            round=state.number,
            seconds=seconds,
            left_out=dict(release.left_out),
            **release.figures,
        )
        return round_state.retrained(state, release.id, seconds)

    def _judge(self, state: RoundState) -> RoundState:
        registry = self._federation.releases
        release = registry.read(state.release)
        if release.state != "candidate":
            # The gate, or an administrator, has decided before the state could be saved.
            return round_state.judged(state, release.reasons)
        reasons = self._backend.objections(release.id)
        # Under the lock of the promotion, so that the round is either aborted or done.
        with state_files.lock_states(self._folder):
            if aborted := self._aborted(state):
                return aborted
            if not reasons:
                try:
                    registry.promote(release.id, judged=release)
                except ReleaseError as error:
                    reasons = (str(error),)
            if reasons and (stored := registry.reject(release.id, reasons)).state != "candidate":
                # An administrator has decided while the gate was at work.
                state = round_state.judged(state, stored.reasons)
                state_files.save_state(self._folder, state)
                return state
            state = round_state.judged(state, reasons)
            state_files.save_state(self._folder, state)
        if reasons:
            self._log.emit(events.RELEASE_REJECTED, release=release.id, reasons=list(reasons))
        else:
            self._log.emit(events.RELEASE_PROMOTED, release=release.id)
        return state


@contextmanager
def _resumable() -> Iterator[None]:
    """Turns an error that may pass into an interruption; the round goes on at its step later."""
    try:
        yield
    except (OSError, SafetensorError, F2LError) as error:
        if not is_transient(error):
            raise
        raise Interrupted(
            "a file can't be read or written",
            got=str(error).rstrip("."),
            remedy="Make room, or mend what is wrong, and go on with the round; what was accepted "
            "is in the zoo.",
        ) from error
