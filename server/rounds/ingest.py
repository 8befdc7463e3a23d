"""The way of an update into the zoo: screened, made durable, acknowledged.

An update is acknowledged (an event, a line in the journal) after the zoo has it on disk, together
with those that were taken with it: syncs and files are as many as commits, not answers. The zoo
takes a key once, so a reply that comes twice, or again after a crash, counts once. A quarantine
entry is on disk before it is acknowledged.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed import events
from f2l_fed.admission import Finding, Submission, Verdict, new_records
from f2l_fed.errors import LayoutMismatch, WireError, ZooError
from f2l_fed.events import EventLog
from f2l_fed.local_training.candidate_kinds import ANCHOR
from f2l_fed.local_training.selection import CandidateSet
from f2l_fed.quarantine.entry import QuarantineEntry
from f2l_fed.wire.messages import Update
from f2l_fed.wire.packing import CountMismatch, unpack_update
from f2l_fed.zoo import NewRecord
from server.federation.body_updates import BodyUpdate, BodyUpdates
from server.federation.folder import Federation
from server.rounds.journal import Code
from server.rounds.messaging import RequestHeader, SiteReply, Unanswered
from server.rounds.run_cache import RunCache, anchor_digest
from server.rounds.screening import Screening


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one task.

    Args:
        code: See `Code`.
        reason: For people; "" if the update was accepted.
        finding: What admission found, a key of `f2l_fed.admission.REASONS`; "long" if the update
            was accepted, but shortened; of a refusal the site's code.
        chosen: Kinds of the candidates that the site started from, if the update was accepted.
    """

    code: Code
    reason: str = ""
    finding: str = ""
    chosen: tuple[str, ...] = ()


def unanswered(found: Unanswered) -> Outcome:
    """The outcome of a request without an answer."""
    if found.refused:
        return Outcome("refused" if found.able else "unable", found.reason, found.code)
    return Outcome("silent" if found.code == "silent" else "failed", found.reason)


_STRANGE_START = Outcome("start", "a start that is not among the candidates")

_MOST_WAITING = 64 << 20
"""Bytes of accepted records that wait for their commit."""


class Ingest:
    """The way into zoo and quarantine, for one run.

    Args:
        federation: The folder.
        run_cache: Gets the contexts of updates, and has the candidates of late sites.
        screening: Judges updates.
        log: Where events go.
    """

    def __init__(
        self,
        *,
        federation: Federation,
        run_cache: RunCache,
        screening: Screening,
        log: EventLog,
    ) -> None:
        self._federation, self._run_cache = federation, run_cache
        self._screening, self._log = screening, log
        # By release, the digest of the anchor that the probes of its tasks start from.
        self._anchors: dict[str, str] = {}
        # The latest of these anchors, with its release.
        self._latest: tuple[str, Tensor] | None = None
        # By site, the rounds of its quarantine entries.
        self._quarantined: dict[str, set[int]] = {}
        # Accepted, and not on disk yet.
        self._records: list[NewRecord] = []
        self._bodies: list[tuple[str, BodyUpdate]] = []

    def begin_round(self, expected_sites: int, entries: Iterable[QuarantineEntry]) -> None:
        """Notes how many sites are expected and which entries are in quarantine."""
        self._screening.begin_round(expected_sites)
        self._quarantined.clear()
        for entry in entries:
            self._quarantined.setdefault(entry.site, set()).add(entry.round)

    def end_round(self) -> None:
        """Reviews the updates of the round; the admission history is durable on return."""
        self._screening.review()
        # A damaged file, which prevents a merge, is found by whoever reads it.
        with suppress(ZooError):
            self._federation.zoo.tidy()

    def take(self, reply: SiteReply, candidates: CandidateSet) -> Outcome:
        """Screens the reply to a task; what is accepted is durable after the next `commit`.

        Args:
            reply: To a task.
            candidates: The candidates in the task.

        Raises:
            ZooError: If zoo or quarantine can't be written; that is not the site's fault.
        """
        content = reply.unpack()
        if isinstance(content, Unanswered):
            return unanswered(content)
        federation = self._federation
        try:
            body, pairs = federation.body, federation.config.pairs
            update = unpack_update(
                content,
                federation.target.layout,
                networks=len(candidates) if body is None else pairs,
                episodes=pairs,
                body=federation.body_layout,
                known=self._next_anchor(reply.request.release)
                if federation.frame.may_be_coded
                else None,
            )
        except CountMismatch as error:
            return Outcome("count", str(error))
        except (WireError, LayoutMismatch) as error:
            return Outcome("garbage", str(error))
        outcome = self._admit(reply.request, update, candidates)
        self._commit_if_much()
        return outcome

    def commit(self) -> None:
        """Makes durable what was accepted since the last call.

        Raises:
            ZooError: If zoo or folder can't be written.
        """
        if self._records:
            self._federation.zoo.append(self._records)
            self._records = []
        # After the heads: of two files that a crash can part, the body's is missed the least.
        for release_id, trained in self._bodies:
            BodyUpdates.of(self._federation.root).keep(release_id, trained)
        self._bodies = []

    def drop_uncommitted(self) -> None:
        """Drops what a failed round could not commit; a site may have been erased since."""
        self._records, self._bodies = [], []

    def take_late(self, reply: SiteReply) -> None:
        """Takes the reply to a task whose round went on without it, and commits."""
        request = reply.request
        candidates = self._run_cache.take_candidates(request.round, request.site)
        if candidates is None:
            return
        outcome = self.take(reply, candidates)
        self.commit()
        self._log.emit(
            events.SITE_LATE,
            round=request.round,
            site=request.site,
            code=outcome.code,
            reason=outcome.reason,
            finding=outcome.finding,
        )

    def _admit(self, request: RequestHeader, update: Update, candidates: CandidateSet) -> Outcome:
        if update.round != request.round:
            return Outcome("round", f"an update for round {update.round}")
        config = self._federation.config
        if self._federation.body is not None or config.has_shared_network:
            kinds = {ANCHOR, *(kind for starts in candidates for kind in starts)}
            if not kinds.issuperset(update.chosen):
                return _STRANGE_START
        if self._federation.body is not None:
            return self._admit_heads(request, update)
        if config.has_shared_network:
            return self._admit_shared(request, update)
        pairs = list(zip(candidates, update.chosen, strict=True))
        if any(kind not in starts for starts, kind in pairs):
            return _STRANGE_START
        others = [w for starts, kind in pairs for name, w in starts.items() if name != kind]
        submission = Submission(
            site=request.site,
            round=request.round,
            parent=request.release,
            weights=update.weights,
            starts=torch.stack([starts[kind] for starts, kind in pairs]),
            probes=update.probes,
            numbers=update.numbers,
            steps=config.recipe(request.release).steps,
            others=torch.stack(others) if others else None,
        )
        return self._screen(submission, update.chosen)

    def _admit_shared(self, request: RequestHeader, update: Update) -> Outcome:
        """Takes what a site made of the shared network."""
        submission = Submission(
            site=request.site,
            round=request.round,
            parent=request.release,
            weights=update.weights,
            starts=self._next_anchor(request.release).expand_as(update.weights),
            probes=update.probes,
            numbers=update.numbers,
            steps=0,
            solved=True,
            shared=True,
        )
        return self._screen(submission, update.chosen)

    def _admit_heads(self, request: RequestHeader, update: Update) -> Outcome:
        """Takes a site's heads and its update of the body; from a private site there is no head."""
        if update.body is not None and not bool(update.body.square().sum().isfinite()):
            return Outcome("admission", "an update of the body that is not finite", "finite")
        submission = Submission(
            site=request.site,
            round=request.round,
            parent=request.release,
            weights=update.weights,
            starts=self._federation.first_start.expand_as(update.weights),
            probes=update.probes,
            numbers=update.numbers,
            steps=self._federation.config.recipe(request.release).steps,
            solved=True,
        )
        outcome = Outcome("accepted")
        if len(update.weights):
            outcome = self._screen(submission, update.chosen)
        if update.body is not None and outcome.code == "accepted":
            trained = BodyUpdate(site=request.site, round=request.round, body=update.body)
            self._bodies.append((request.release, trained))
        return outcome

    def _commit_if_much(self) -> None:
        rows = sum(one.weights.nbytes + one.context.nbytes for one in self._records)
        if rows + sum(trained.body.nbytes for _, trained in self._bodies) > _MOST_WAITING:
            self.commit()

    def _screen(self, submission: Submission, chosen: tuple[str, ...]) -> Outcome:
        if self._screening.holds(submission):
            # The late update of the site's earlier node has come first.
            return Outcome("accepted", chosen=chosen)
        judged = self._screening.judge(submission)
        verdict = judged.verdict
        if verdict.action == "reject":
            if verdict.code == "unchanged" and submission.parent:
                # From the first anchor, with outputs of zeros, nobody has nothing to learn.
                return Outcome("unchanged", "nothing left to learn", verdict.code)
            return Outcome("admission", verdict.reason, verdict.code)
        if verdict.action == "quarantine":
            return self._quarantine(submission, verdict)
        self._screening.keep_part(judged)
        # With a body the head on all of a site's examples is the best context for itself.
        heads = self._federation.body is not None
        contexts = submission.weights if heads else submission.probes
        needed = self._federation.probe_frame.episodes
        self._run_cache.keep_context(
            self._next_digest(submission.parent), submission.site, contexts[:needed]
        )
        # The next of the same look is compared with it; if the zoo can't take it, the run ends.
        self._screening.remember(judged)
        self._records += new_records(judged.submission)
        return Outcome("accepted", finding=verdict.code, chosen=chosen)

    def _quarantine(self, submission: Submission, verdict: Verdict) -> Outcome:
        rounds = self._quarantined.setdefault(submission.site, set())
        quota = self._federation.config.admission.quota
        # An update that comes again after a crash is not counted twice.
        if len(rounds - {submission.round}) >= quota:
            figures = {"waiting": float(len(rounds)), "max_allowed": float(quota)}
            full = Finding(code="quota", action="reject", figures=figures)
            return Outcome("admission", f"{verdict.reason}; {full}", full.code)
        self._federation.quarantine.put(
            new_records(submission),
            verdict,
            lineage=self._federation.config.lineage,
            time_s=self._log.clock(),
        )
        rounds.add(submission.round)
        return Outcome("quarantined", verdict.reason, verdict.code)

    def _next_digest(self, release_id: str) -> str:
        if release_id not in self._anchors:
            self._anchors[release_id] = anchor_digest(self._next_anchor(release_id))
        return self._anchors[release_id]

    def _next_anchor(self, release_id: str) -> Tensor:
        """(D,) or (B,) float32, the anchor that the tasks after a release have been sent with."""
        if self._latest is None or self._latest[0] != release_id:
            release = self._federation.releases.read(release_id) if release_id else None
            self._latest = release_id, self._federation.next_anchor(release)
        return self._latest[1]
