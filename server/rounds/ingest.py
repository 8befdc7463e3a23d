"""Screening answers, one at a time, and making durable what comes of them.

An update is acknowledged (an event, a line in the journal) after the zoo has it on disk. The zoo
takes a key once, so an answer that comes twice, or again after a crash, counts once. What admission
puts aside is in the quarantine before anything says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from f2l_fed import events
from f2l_fed.admission import Finding, Submission, Verdict, new_records
from f2l_fed.errors import LayoutMismatch, WireError
from f2l_fed.events import EventLog
from f2l_fed.local_training.selection import CandidateSet
from f2l_fed.wire.messages import Update
from f2l_fed.wire.packing import unpack_update
from server.federation.folder import Federation
from server.rounds.check_in import content_of
from server.rounds.journal import Code
from server.rounds.messaging import Asked, SiteReply
from server.rounds.run_cache import RunCache, digest
from server.rounds.screening import Screening


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an answer.

    Args:
        code: See `Code`.
        reason: For people; "" if it was accepted.
        finding: What admission found, a key of `f2l_fed.admission.REASONS`; "long" where it was
            accepted, but shortened.
        chosen: Kinds of the starts, if it was accepted.
    """

    code: Code
    reason: str = ""
    finding: str = ""
    chosen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingest:
    """The way into the zoo, for one run.

    Args:
        federation: The folder.
        spool: Gets the contexts that answers bring, and has the starts of late ones.
        screening: Judges updates.
        log: Where events go.
        anchors: By release, the name of the anchor that its tasks' probes start from.
        waiting: By site, the rounds of what is in quarantine; as of the beginning of a round.
    """

    federation: Federation
    spool: RunCache
    screening: Screening
    log: EventLog
    anchors: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, set[int]] = field(default_factory=dict)

    def take(self, answer: SiteReply, offer: CandidateSet) -> Outcome:
        """Screens one answer and makes durable what is admitted or put aside.

        Args:
            answer: To a task.
            offer: The starts that were in the task.

        Raises:
            ZooError: If zoo or quarantine can't be written; that is not the site's fault.
        """
        content, failure, own_will = content_of(answer)
        if content is None:
            silent: Code = "silent" if answer.failure == "timeout" else "failed"
            return Outcome("refused" if own_will else silent, failure)
        try:
            update = unpack_update(content, self.federation.target.layout)
        except (WireError, LayoutMismatch) as error:
            return Outcome("garbage", str(error))
        return self._admit(answer.asked, update, offer)

    def take_late(self, answer: SiteReply) -> None:
        """Takes the answer to a task whose round went on without it."""
        asked = answer.asked
        offer = self.spool.take_offer(asked.round, asked.site)
        if offer is None:
            return
        outcome = self.take(answer, offer)
        self.log.emit(
            events.SITE_LATE,
            round=asked.round,
            site=asked.site,
            code=outcome.code,
            reason=outcome.reason,
            finding=outcome.finding,
        )

    def _admit(self, asked: Asked, update: Update, offer: CandidateSet) -> Outcome:
        if update.round != asked.round:
            return Outcome("round", f"an update for round {update.round}")
        config = self.federation.config
        if len(update.chosen) != len(offer) or len(update.probes) != config.probe.episodes:
            return Outcome("count", "another number of networks or probes than was asked")
        pairs = list(zip(offer, update.chosen, strict=True))
        if any(kind not in starts for starts, kind in pairs):
            return Outcome("start", "a start that was not offered")
        others = [w for starts, kind in pairs for name, w in starts.items() if name != kind]
        submission = Submission(
            site=asked.site,
            round=asked.round,
            parent=asked.release,
            weights=update.weights,
            starts=torch.stack([starts[kind] for starts, kind in pairs]),
            probes=update.probes,
            numbers=update.numbers,
            steps=(config.later if asked.release else config.first).steps,
            others=torch.stack(others) if others else None,
        )
        return self._judged(submission, update.chosen)

    def _judged(self, submission: Submission, chosen: tuple[str, ...]) -> Outcome:
        if self.screening.holds(submission):
            # The late answer of the node that the site was before has come first.
            return Outcome("accepted", chosen=chosen)
        judged = self.screening.judge(submission)
        verdict = judged.verdict
        if verdict.action == "reject":
            return Outcome("admission", verdict.reason, verdict.code)
        if verdict.action == "quarantine":
            return self._put_aside(submission, verdict)
        self.screening.keep_part(judged)
        self.federation.zoo.append(new_records(judged.submission))
        self.screening.memory = judged.history
        self.spool.keep_context(
            self._anchored(submission.parent), submission.site, submission.probes
        )
        return Outcome("accepted", finding=verdict.code, chosen=chosen)

    def _put_aside(self, submission: Submission, verdict: Verdict) -> Outcome:
        waiting = self.waiting.setdefault(submission.site, set())
        most = self.federation.config.admission.quota
        # One that comes again after a crash is not counted twice.
        if len(waiting - {submission.round}) >= most:
            figures = {"waiting": float(len(waiting)), "max_allowed": float(most)}
            full = Finding(code="quota", action="reject", figures=figures)
            return Outcome("admission", f"{verdict.reason}; {full}", full.code)
        self.federation.quarantine.put(
            new_records(submission),
            verdict,
            lineage=self.federation.config.lineage,
            time_s=self.log.clock(),
        )
        waiting.add(submission.round)
        return Outcome("quarantined", verdict.reason, verdict.code)

    def _anchored(self, id: str) -> str:
        if id not in self.anchors:
            release = self.federation.releases.read(id) if id else None
            self.anchors[id] = digest(self.federation.next_anchor(release))
        return self.anchors[id]
