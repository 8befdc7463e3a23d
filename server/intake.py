"""Screening answers, one at a time, and making those durable that nothing speaks against.

An update is acknowledged (an event, a line in the journal) after the zoo has it on disk. The zoo
takes a key once, so an answer that comes twice, or again after a crash, counts once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from f2l_fed import events, wire
from f2l_fed.admission import objection
from f2l_fed.candidates import Offer
from f2l_fed.errors import LayoutMismatch, WireError
from f2l_fed.events import EventLog
from f2l_fed.zoo import NewRecord
from server.attendance import content_of
from server.exchange import Answer, Asked
from server.federation import Federation
from server.journal import Code
from server.spool import Spool, digest


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an answer; the reason is "" if it was accepted."""

    code: Code
    reason: str = ""
    chosen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """The way into the zoo, for one run.

    Args:
        federation: The folder.
        spool: Gets the contexts that answers bring, and has the starts of late ones.
        log: Where events go.
        anchors: By release, the name of the anchor that its tasks' probes start from.
    """

    federation: Federation
    spool: Spool
    log: EventLog
    anchors: dict[str, str] = field(default_factory=dict)

    def take(self, answer: Answer, offer: Offer) -> Outcome:
        """Screens one answer and, if nothing speaks against it, makes it durable.

        Args:
            answer: To a task.
            offer: The starts that were in the task.

        Raises:
            ZooError: If the zoo can't be written; that is not the site's fault.
        """
        content, failure, own_will = content_of(answer)
        if content is None:
            silent: Code = "silent" if answer.failure == "timeout" else "failed"
            return Outcome("refused" if own_will else silent, failure)
        try:
            update = wire.unpack_update(content, self.federation.target.layout)
        except (WireError, LayoutMismatch) as error:
            return Outcome("garbage", str(error))
        return self._admit(answer.asked, update, offer)

    def take_late(self, answer: Answer) -> None:
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
        )

    def _admit(self, asked: Asked, update: wire.Update, offer: Offer) -> Outcome:
        if update.round != asked.round:
            return Outcome("round", f"an update for round {update.round}")
        episodes = self.federation.config.probe.episodes
        if len(update.chosen) != len(offer) or len(update.probes) != episodes:
            return Outcome("count", "another number of networks or probes than was asked")
        new = []
        for episode, probe in enumerate(update.probes):
            # Without a release all episodes have the same start, and share what became of it.
            which = min(episode, len(offer) - 1)
            if update.chosen[which] not in offer[which]:
                return Outcome("start", "a start that was not offered")
            weights, start = update.weights[which], offer[which][update.chosen[which]]
            if reason := objection(weights, start, probe, update.numbers):
                return Outcome("admission", reason)
            norm = float(torch.linalg.vector_norm(weights - start))
            new.append(
                NewRecord(
                    key=f"{asked.round}/{asked.site}/{episode}",
                    site=asked.site,
                    round=asked.round,
                    parent=asked.release,
                    weights=weights.numpy(),
                    context=probe.numpy(),
                    metrics={**update.numbers, "update_norm": norm},
                )
            )
        self.federation.zoo.append(new)
        self.spool.keep_context(self._anchored(asked.release), asked.site, update.probes)
        return Outcome("accepted", chosen=update.chosen)

    def _anchored(self, id: str) -> str:
        if id not in self.anchors:
            release = self.federation.releases.read(id) if id else None
            self.anchors[id] = digest(self.federation.next_anchor(release))
        return self.anchors[id]
