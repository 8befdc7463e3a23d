"""The bookkeeping of one round's exchange: tasks that are out, and how each site has ended."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import Any

from f2l_fed import events
from f2l_fed.events import EventLog
from f2l_fed.local_training.selection import CandidateSet
from f2l_fed.quarantine.entry import QuarantineEntry
from server.federation.body_updates import BodyUpdates
from server.federation.folder import Federation
from server.rounds.journal import PASSING, SUCCESSES, Journal, JournalEntry
from server.rounds.state import ExchangeResult, RoundState


class RoundExchange:
    """The sites of one round's exchange, by how far they have come.

    Args:
        state: The round.
        journal: Gets a line for every end.
        log: Gets an event for every end.
        stored: Sites with a record of this round in the zoo.

    Attributes:
        accepted: Sites with an update in the zoo, or nothing left to learn.
        unchanged: Those of them with nothing left to learn.
        settled: Sites that are not asked again: accepted, quarantined, or rejected for good.
        broken: Sites that broke in their task during this run.
        rejected: Sites without an update, each with the reason.
        unable: Those of them that have said that they can't take part.
        quarantined: Sites with an update in quarantine, each with the reason.
    """

    def __init__(
        self, state: RoundState, *, journal: Journal, log: EventLog, stored: Iterable[str] = ()
    ) -> None:
        self.state, self._journal, self._log = state, journal, log
        self.accepted = set(stored)
        self.settled = set(self.accepted)
        self.broken: set[str] = set()
        self.rejected: dict[str, str] = {}
        self.unable: set[str] = set()
        self.unchanged: set[str] = set()
        self.quarantined: dict[str, str] = {}
        # As many as there are tasks out, however many sites there are.
        self._out: dict[str, tuple[CandidateSet, int]] = {}
        self._bytes_up = self._bytes_down = 0

    @classmethod
    def open(
        cls,
        state: RoundState,
        federation: Federation,
        log: EventLog,
        entries: Iterable[QuarantineEntry],
    ) -> RoundExchange:
        """Reads what zoo, journal and quarantine hold of a round that may have been interrupted.

        Writes the journal lines and events that a killed process could not write.

        Args:
            state: The round.
            federation: The folder.
            log: Where events go.
            entries: All that is in quarantine.
        """
        stored = federation.zoo.snapshot().records(round=state.number)
        journal = Journal.of(federation.root / "rounds", state.number)
        bodies = BodyUpdates.of(federation.root).sites(state.parent, state.number)
        sites = {record.site for record in stored} | bodies
        exchange = cls(state, journal=journal, log=log, stored=sites)
        lines = journal.read()
        for line in lines:
            exchange._count(line)
        for site in sorted(exchange.accepted - {line.site for line in lines}):
            # The process died between the commit and the line.
            exchange.end(JournalEntry(site=site, code="accepted"))
        for entry in entries:
            if entry.round == state.number and entry.site not in exchange.settled:
                exchange.end(
                    JournalEntry(
                        site=entry.site,
                        code="quarantined",
                        reason=entry.verdict.reason,
                        finding=entry.verdict.code,
                    )
                )
        return exchange

    @property
    def asked(self) -> int:
        """Number of sites with an end or a task, so far."""
        return len(self.settled | self.rejected.keys() | self._out.keys())

    def end_check_in(self, failed: Iterable[JournalEntry]) -> None:
        """Notes the sites that failed at the check-in, unless they have ended otherwise.

        The check-in has emitted their events.
        """
        for entry in failed:
            known = self.rejected.get(entry.site)
            if entry.site not in self.settled | self._out.keys() and known != entry.reason:
                self._journal.append(entry)
                self._count(entry)

    def send(self, site: str, candidates: CandidateSet, size_bytes: int) -> None:
        """Notes a task that is about to be sent."""
        self._out[site] = (candidates, size_bytes)

    def sent(self, site: str) -> tuple[CandidateSet, int]:
        """Removes the task of a site; returns its candidates and its size in bytes."""
        return self._out.pop(site)

    def end(self, entry: JournalEntry, chosen: tuple[str, ...] = ()) -> None:
        """Writes the end of a task into the journal, counts it and emits its event.

        Args:
            entry: The end.
            chosen: Kinds of the candidates that the site started from, if it was accepted.
        """
        if entry.code in SUCCESSES:
            self.accepted.add(entry.site)
        elif entry.code == "failed":
            self.broken.add(entry.site)
        self._journal.append(entry)
        self._count(entry)
        fields: dict[str, Any] = {"round": self.state.number, "site": entry.site}
        event = events.SITE_ACCEPTED
        if entry.code in SUCCESSES:
            fields["chosen"] = " ".join(chosen)
            fields |= {"reason": entry.reason} if entry.reason else {}
        elif entry.code == "quarantined":
            event, fields["reason"] = events.SITE_QUARANTINED, entry.reason
        else:
            event = events.SITE_REJECTED
            fields |= {"code": entry.code, "reason": entry.reason}
        self._log.emit(event, **fields, finding=entry.finding)

    def _count(self, entry: JournalEntry) -> None:
        self._bytes_up += entry.bytes_up
        self._bytes_down += entry.bytes_down
        self.unable.discard(entry.site)
        if entry.code == "unchanged":
            self.unchanged.add(entry.site)
        if entry.code in SUCCESSES:
            self.settled.add(entry.site)
            self.rejected.pop(entry.site, None)
        elif entry.site not in self.settled:
            if entry.code == "unable":
                self.unable.add(entry.site)
            if entry.code == "quarantined":
                self.rejected.pop(entry.site, None)
                self.quarantined[entry.site] = entry.reason
            else:
                self.rejected[entry.site] = entry.reason
            if entry.code not in PASSING:
                self.settled.add(entry.site)

    def result(
        self, federation: Federation, *, silent_nodes: int, seconds: float
    ) -> ExchangeResult:
        """The result of the exchange, read back from the zoo.

        Args:
            federation: The folder.
            silent_nodes: Number of connected nodes that did not introduce themselves.
            seconds: Duration of the exchange.
        """
        records = federation.zoo.snapshot().records(round=self.state.number)
        accepted = {record.site for record in records}
        accepted |= BodyUpdates.of(federation.root).sites(self.state.parent, self.state.number)
        accepted |= self.unchanged
        means = {
            name: fmean(told)
            if (told := [r.metrics[name] for r in records if name in r.metrics])
            else 0.0
            for name in ("accuracy_before", "accuracy_after")
        }
        rejected, quarantined = (
            {site: reasons[site] for site in sorted(reasons.keys() - accepted)}
            for reasons in (self.rejected, self.quarantined)
        )
        known = len(accepted) + len(rejected) + len(quarantined)
        return ExchangeResult(
            asked=max(self.state.sites, known + silent_nodes),
            unable=len(self.unable - accepted),
            accepted=tuple(sorted(accepted)),
            rejected=rejected,
            quarantined=quarantined,
            bytes_up=self._bytes_up,
            bytes_down=self._bytes_down,
            seconds=seconds,
            **means,
        )
