"""The exchange of one round: tasks out, answers in, until there is nobody left to ask."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from torch import Tensor

from f2l_fed import events
from f2l_fed.local_training.candidate_kinds import ANCHOR
from f2l_fed.local_training.probe import anchor
from f2l_fed.local_training.selection import CandidateSet
from f2l_fed.wire.messages import TASK_ACTION, Task
from f2l_fed.wire.packing import pack_task
from server.federation.folder import Federation
from server.rounds import state as round_state
from server.rounds.check_in import CheckIn
from server.rounds.ingest import Ingest
from server.rounds.journal import PASSING, Journal, JournalEntry
from server.rounds.messaging import Messenger, SiteReply, SiteRequest, deadline, size_bytes
from server.rounds.run_cache import digest
from server.rounds.state import IN_QUARANTINE, ExchangeResult, RoundState

if TYPE_CHECKING:
    from server.rounds.backend import Backend


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What an exchange needs; see `server.rounds.coordinator.Coordinator`."""

    talk: Messenger
    engine: Backend
    intake: Ingest
    attendance: CheckIn

    @property
    def federation(self) -> Federation:
        """The folder."""
        return self.intake.federation

    def exchange(self, state: RoundState) -> RoundState:
        """Asks every site once, those first that are there, then those that have joined meanwhile.

        A site whose record is in the zoo or in quarantine, or whose rejection is in the journal,
        is not asked again. One that was silent or broke is asked again if it comes back as another
        node, and one that broke once more as the same node: it may have been restarted in its task.
        """
        began = time.monotonic()
        federation, limits = self.federation, self.federation.config.round
        late = deadline(limits.deadline_s)
        promoted = federation.releases.read(state.parent) if state.parent else None
        anchored, starts_from = federation.anchor(promoted), federation.next_anchor(promoted)
        self.intake.screening.follow_zoo()
        self.intake.screening.sites = state.sites
        wave = _Wave(self, state)

        def over() -> bool:
            if late():
                return True
            # With all of them wanted, those who join are waited for too.
            wanted = limits.enough * max(state.sites, wave.asked)
            return limits.enough < 1 and wave.accepted >= wanted - 1e-9

        asked: Counter[tuple[str, int]] = Counter()
        while True:
            present = self.attendance.call(self.talk.connected(), anchored, over)
            node_of = self.attendance.node_of
            missing = [
                site
                for site in present
                if site not in wave.settled
                and asked[site, node_of[site]] < (2 if site in wave.broken else 1)
            ]
            if not missing or over():
                break
            asked.update((site, node_of[site]) for site in missing)
            requests = wave.requests(missing, digest(anchored), starts_from)
            for answer in self.talk.ask(TASK_ACTION, requests, wait_for_late=True, over=over):
                wave.take(answer)
        self.intake.screening.review()
        seconds = round(time.monotonic() - began, 3)
        return round_state.exchanged(state, wave.result(seconds), limits)


class _Wave:
    """Requests of one round and what becomes of their answers."""

    def __init__(self, collection: Exchange, state: RoundState) -> None:
        self._collection, self._federation = collection, collection.federation
        self._state = state
        self._journal = Journal.of(self._federation.root / "rounds", state.number)
        # As many as there are tasks out, however many sites there are.
        self._out: dict[str, tuple[CandidateSet, int]] = {}
        self._rejected: dict[str, str] = {}
        self.broken: set[str] = set()
        self._up = self._down = 0
        stored = self._federation.zoo.snapshot().records(round=state.number)
        self.settled = {record.site for record in stored}
        self.accepted = len(self.settled)
        told = set()
        for line in self._journal.read():
            self._count(line)
            told.add(line.site)
        for site in sorted(self.settled - told):
            # The process died after the commit and before it could say so.
            self._end(JournalEntry(site=site, code="accepted"))
        waiting = collection.intake.waiting
        waiting.clear()
        for held in self._federation.quarantine.list():
            waiting.setdefault(held.site, set()).add(held.round)
            if held.round == state.number and held.site not in self.settled:
                self._end(
                    JournalEntry(
                        site=held.site,
                        code="quarantined",
                        reason=held.verdict.reason,
                        finding=held.verdict.code,
                    )
                )

    @property
    def asked(self) -> int:
        """Number of sites with an end or a task, so far."""
        return len(self.settled | self._rejected.keys() | self._out.keys())

    def requests(
        self, sites: Sequence[str], anchored: str, starts_from: Tensor
    ) -> Iterator[SiteRequest]:
        """One task for each site, made when it is about to be sent.

        Args:
            sites: Names.
            anchored: Digest of the anchor that their contexts started from.
            starts_from: (D,) float32, where the probes of these tasks start.
        """
        federation, state = self._federation, self._state
        config = federation.config
        for site, offer in self._planned(sites, anchored):
            content = pack_task(
                Task(
                    frame=federation.frame,
                    anchor=starts_from,
                    round=state.number,
                    release=state.parent,
                    recipe=config.later if state.parent else config.first,
                    candidates=offer if state.parent else (),
                )
            )
            self._out[site] = (offer, size_bytes(content))
            node = self._collection.attendance.node_of[site]
            yield SiteRequest(node, content, site, state.number, state.parent)

    def _planned(self, sites: Sequence[str], anchored: str) -> Iterator[tuple[str, CandidateSet]]:
        if not self._state.parent:
            start = {ANCHOR: anchor(self._federation.target, self._federation.config.lineage)}
            return ((site, (start,)) for site in sites)
        contexts: Mapping[str, Tensor] = self._collection.intake.spool.contexts(
            anchored, tuple(sites)
        )
        return self._collection.engine.plan(self._state.parent, contexts)

    def take(self, answer: SiteReply) -> None:
        """Settles one request."""
        intake = self._collection.intake
        if answer.late:
            intake.take_late(answer)
            return
        site, number = answer.asked.site, self._state.number
        offer, sent = self._out.pop(site)
        outcome = intake.take(answer, offer)
        if outcome.code == "silent":
            intake.spool.keep_offer(number, site, offer)
        elif outcome.code not in PASSING:
            # Its site has come back as another node; the answer of the one it was is not wanted.
            intake.spool.drop_offer(number, site)
        self.accepted += outcome.code == "accepted"
        if outcome.code == "failed":
            self.broken.add(site)
        self._end(
            JournalEntry(
                site=site,
                code=outcome.code,
                reason=outcome.reason,
                finding=outcome.finding,
                bytes_up=answer.size_bytes,
                bytes_down=sent,
            ),
            " ".join(outcome.chosen),
        )

    def _end(self, settled: JournalEntry, chosen: str = "") -> None:
        """Writes the end of a request down, counts it and tells whoever listens."""
        self._journal.append(settled)
        self._count(settled)
        fields: dict[str, Any] = {"round": self._state.number, "site": settled.site}
        event = events.SITE_ACCEPTED
        if settled.code == "accepted":
            fields["chosen"] = chosen
        elif settled.code == "quarantined":
            event, fields["reason"] = events.SITE_QUARANTINED, settled.reason
        else:
            event = events.SITE_REJECTED
            fields |= {"code": settled.code, "reason": settled.reason}
        self._collection.intake.log.emit(event, **fields, finding=settled.finding)

    def _count(self, settled: JournalEntry) -> None:
        self._up += settled.bytes_up
        self._down += settled.bytes_down
        if settled.code == "accepted":
            self.settled.add(settled.site)
            self._rejected.pop(settled.site, None)
        elif settled.site not in self.settled:
            aside = IN_QUARANTINE if settled.code == "quarantined" else ""
            self._rejected[settled.site] = aside + settled.reason
            if settled.code not in PASSING:
                self.settled.add(settled.site)

    def result(self, seconds: float) -> ExchangeResult:
        """What the exchange brought, read back from the zoo."""
        records = self._federation.zoo.snapshot().records(round=self._state.number)
        accepted = {record.site for record in records}
        means = {
            name: fmean(told)
            if (told := [r.metrics[name] for r in records if name in r.metrics])
            else 0.0
            for name in ("accuracy_before", "accuracy_after")
        }
        rejected = {site: reason for site, reason in self._rejected.items() if site not in accepted}
        unheard = self._collection.attendance.unheard & set(self._collection.talk.connected())
        return ExchangeResult(
            asked=max(self._state.sites, len(accepted | rejected.keys()) + len(unheard)),
            accepted=tuple(sorted(accepted)),
            rejected=dict(sorted(rejected.items())),
            bytes_up=self._up,
            bytes_down=self._down,
            seconds=seconds,
            **means,
        )
