"""Conducting rounds: introductions, exchange, retraining, gate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Protocol

import torch
from flwr.app import RecordDict
from torch import Tensor

from f2l_fed import events, wire
from f2l_fed.admission import objection
from f2l_fed.candidates import Offer
from f2l_fed.errors import F2LError
from f2l_fed.events import EventLog
from f2l_fed.probe import anchor
from f2l_fed.verdict import verdict
from f2l_fed.zoo import NewRecord
from server import rounds
from server.exchange import Answer, Talk, size_bytes
from server.federation import Federation
from server.releases import Release
from server.rounds import Exchange, RoundState


class Engine(Protocol):
    """Whoever does the heavy work; see `server.cluster.Cluster`."""

    def retrain(self, id: str, commit: int) -> Release:
        """Fits a candidate release on a snapshot."""

    def plan(self, release: str, probes: Mapping[str, Tensor]) -> Iterator[tuple[str, Offer]]:
        """Candidates by kind for every episode of each site."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conductor:
    """Everything a round needs.

    Args:
        federation: The folder.
        talk: The way to the sites.
        engine: The way to the cluster.
        log: Where events go.
        names: Names bound to nodes' keys; a node that is not in it goes by the name it gives.
    """

    federation: Federation
    talk: Talk
    engine: Engine
    log: EventLog
    names: Mapping[int, str] = field(default_factory=dict)

    def run(self, count: int, expected_sites: int) -> list[RoundState]:
        """Conducts rounds, after finishing one that was interrupted.

        Args:
            count: How many new rounds.
            expected_sites: Number of sites to wait for before the first.
        """
        folder = self.federation.root / "rounds"
        known = rounds.load_all(folder)
        releases = self.federation.releases
        anchored = self.federation.anchor(releases.promoted())
        probes = self.introduce(self.talk.nodes(expected_sites), anchored)
        states = []
        last = known[-1].number if known else 0
        if known and known[-1].step not in ("done", "failed"):
            states.append(self.conduct(known[-1], probes))
        for number in range(last + 1, last + 1 + count):
            promoted = releases.promoted()
            if not torch.equal(anchored, now := self.federation.anchor(promoted)):
                anchored = now
                probes = self.introduce(self.talk.nodes(expected_sites), anchored)
            state = rounds.begun(number, promoted.id if promoted else "", len(probes))
            self.log.emit(events.ROUND_STARTED, round=number, sites=len(probes))
            states.append(self.conduct(state, probes))
            if states[-1].step == "failed":
                break
        return states

    def introduce(self, nodes: list[int], anchored: Tensor) -> dict[str, tuple[int, Tensor]]:
        """Asks every node for its probes from an anchor; node and (E, D) contexts by site name."""
        request = wire.pack_probe_request(
            wire.ProbeRequest(frame=self.federation.frame, anchor=anchored)
        )
        found: dict[str, tuple[int, Tensor]] = {}
        for answer in self.talk.ask(wire.PROBE_ACTION, ((node, request) for node in nodes)):
            content, failure = _content(answer)
            if content is not None:
                try:
                    reply = wire.unpack_probe_reply(content, self.federation.target.layout)
                except F2LError as error:
                    failure = str(error)
                else:
                    site = self.names.get(answer.node, reply.site)
                    if len(reply.probes) != self.federation.config.probe.episodes:
                        failure = "another number of probes than was asked"
                    elif site not in found:
                        found[site] = (answer.node, reply.probes)
                        self.log.emit(
                            events.SITE_PROBED, site=site, done=len(found), sites=len(nodes)
                        )
                        continue
                    else:
                        failure = "a name that another site has"
            self.log.emit(events.SITE_FAILED, node=str(answer.node), reason=failure)
        return dict(sorted(found.items()))

    def conduct(self, state: RoundState, sites: Mapping[str, tuple[int, Tensor]]) -> RoundState:
        """Takes a round from its step to its end; the state is saved after every step."""
        steps: dict[str, Callable[[RoundState], RoundState]] = {
            "exchange": lambda state: self._exchange(state, sites),
            "retrain": self._retrain,
            "gate": self._judge,
        }
        folder = self.federation.root / "rounds"
        rounds.save(folder, state)
        while state.step in steps:
            try:
                state = steps[state.step](state)
            except F2LError as error:
                state = rounds.failed(state, str(error))
            rounds.save(folder, state)
        if state.step == "failed":
            self.log.emit(events.ROUND_FAILED, round=state.number, reason=state.reason)
        else:
            self.log.emit(
                events.ROUND_FINISHED,
                round=state.number,
                accepted=len(state.accepted),
                rejected=len(state.rejected),
                accuracy_before=state.accuracy_before,
                accuracy_after=state.accuracy_after,
                seconds=round(sum(state.seconds.values()), 2),
            )
        return state

    def _exchange(self, state: RoundState, sites: Mapping[str, tuple[int, Tensor]]) -> RoundState:
        began = time.monotonic()
        already = {r.site for r in self.federation.zoo.snapshot().records(round=state.number)}
        missing = {site: probe for site, (_, probe) in sites.items() if site not in already}
        intake = _Intake(self, state, {node: site for site, (node, _) in sites.items()})
        for answer in self.talk.ask(wire.TASK_ACTION, intake.requests(missing)):
            intake.take(answer)
        return rounds.exchanged(
            state, intake.result(time.monotonic() - began), self.federation.config.round
        )

    def _retrain(self, state: RoundState) -> RoundState:
        began = time.monotonic()
        self.log.emit(events.RETRAINING_STARTED, round=state.number)
        commit = self.federation.zoo.snapshot().commit
        release = self.engine.retrain(f"{state.number:05d}", commit)
        seconds = round(time.monotonic() - began, 3)
        self.log.emit(
            events.RETRAINING_FINISHED,
            round=state.number,
            seconds=seconds,
            left_out=dict(release.left_out),
            **release.figures,
        )
        return rounds.retrained(state, release.id, seconds)

    def _judge(self, state: RoundState) -> RoundState:
        registry = self.federation.releases
        release = registry.read(state.release)
        judgement = verdict(release.figures, self.federation.config.gate)
        if judgement.passed:
            registry.promote(release.id)
            self.log.emit(events.RELEASE_PROMOTED, release=release.id)
        else:
            registry.hold(release.id, judgement.reasons)
            self.log.emit(events.RELEASE_HELD, release=release.id, reasons=list(judgement.reasons))
        return rounds.judged(state, tuple(judgement.reasons))


class _Intake:
    """Requests of one exchange and what becomes of their answers."""

    def __init__(self, conductor: Conductor, state: RoundState, site_of: dict[int, str]) -> None:
        self._conductor, self._federation = conductor, conductor.federation
        self._state, self._site_of = state, site_of
        self._node_of = {site: node for node, site in site_of.items()}
        self._offered: dict[str, Offer] = {}
        self._rejected: dict[str, str] = {}
        self._up = self._down = 0

    def requests(self, probes: Mapping[str, Tensor]) -> Iterator[tuple[int, RecordDict]]:
        """One task for each site, made when it is about to be sent."""
        federation, state = self._federation, self._state
        config = federation.config
        if state.parent:
            plan = self._conductor.engine.plan(state.parent, probes)
        else:
            start = {"anchor": anchor(federation.target, config.lineage)}
            plan = ((site, (start,)) for site in probes)
        promoted = federation.releases.read(state.parent) if state.parent else None
        anchored = federation.next_anchor(promoted)
        for site, offered in plan:
            self._offered[site] = offered
            task = wire.Task(
                frame=federation.frame,
                anchor=anchored,
                round=state.number,
                release=state.parent,
                recipe=config.later if state.parent else config.first,
                candidates=offered if state.parent else (),
            )
            content = wire.pack_task(task)
            self._down += size_bytes(content)
            yield self._node_of[site], content

    def take(self, answer: Answer) -> None:
        """Screens one answer and, if nothing speaks against it, makes it durable."""
        site = self._site_of[answer.node]
        offered = self._offered.pop(site)
        self._up += answer.size_bytes
        content, reason = _content(answer)
        if content is not None:
            try:
                update = wire.unpack_update(content, self._federation.target.layout)
                reason = self._admit(site, update, offered)
            except F2LError as error:
                reason = str(error)
        state, log = self._state, self._conductor.log
        if reason:
            self._rejected[site] = reason
            log.emit(events.SITE_REJECTED, round=state.number, site=site, reason=reason)
        else:
            log.emit(
                events.SITE_ACCEPTED, round=state.number, site=site, chosen=" ".join(update.chosen)
            )

    def _admit(self, site: str, update: wire.Update, offered: Offer) -> str:
        if update.round != self._state.number:
            return f"an update for round {update.round}"
        episodes = self._federation.config.probe.episodes
        if len(update.chosen) != len(offered) or len(update.probes) != episodes:
            return "another number of networks or probes than was asked"
        new = []
        for episode, probe in enumerate(update.probes):
            # Without a release all episodes have the same start, and share what became of it.
            which = min(episode, len(offered) - 1)
            if update.chosen[which] not in offered[which]:
                return "a start that was not offered"
            weights, start = update.weights[which], offered[which][update.chosen[which]]
            if reason := objection(weights, start, probe, update.numbers):
                return reason
            norm = float(torch.linalg.vector_norm(weights - start))
            new.append(
                NewRecord(
                    key=f"{self._state.number}/{site}/{episode}",
                    site=site,
                    round=self._state.number,
                    parent=self._state.parent,
                    weights=weights.numpy(),
                    context=probe.numpy(),
                    metrics={**update.numbers, "update_norm": norm},
                )
            )
        self._federation.zoo.append(new)
        return ""

    def result(self, seconds: float) -> Exchange:
        """What the exchange brought, read back from the zoo."""
        records = self._federation.zoo.snapshot().records(round=self._state.number)
        means = {
            name: fmean(told)
            if (told := [r.metrics[name] for r in records if name in r.metrics])
            else 0.0
            for name in ("accuracy_before", "accuracy_after")
        }
        return Exchange(
            accepted=tuple(sorted({record.site for record in records})),
            rejected=dict(sorted(self._rejected.items())),
            bytes_up=self._up,
            bytes_down=self._down,
            seconds=round(seconds, 3),
            **means,
        )


def _content(answer: Answer) -> tuple[RecordDict | None, str]:
    """The content of an answer, or why there is none."""
    if answer.content is None:
        return None, answer.failure
    try:
        refusal = wire.unpack_refusal(answer.content)
    except F2LError as error:
        return None, str(error)
    return (answer.content, "") if refusal is None else (None, f"refused: {refusal.code}")
