"""The exchange step of a round: tasks out, updates in, until there is no site left to ask."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256

from torch import Tensor

from f2l_fed import events
from f2l_fed.audit.release_limits import FEW_SITES
from f2l_fed.events import EventLog
from f2l_fed.local_training.candidate_kinds import ANCHOR
from f2l_fed.local_training.selection import CandidateSet
from f2l_fed.wire.messages import TASK_ACTION, Task
from f2l_fed.wire.packing import pack_task
from server.federation.body_updates import BodyUpdates
from server.federation.folder import Federation
from server.rounds import state as round_state
from server.rounds.backend import Backend
from server.rounds.check_in import CheckIn
from server.rounds.ingest import Ingest
from server.rounds.journal import PASSING, JournalEntry
from server.rounds.messaging import Messenger, SiteReply, SiteRequest, deadline, size_bytes
from server.rounds.protocols import SiteProtocols, asked_in, note_answer
from server.rounds.round_exchange import RoundExchange
from server.rounds.run_cache import RunCache, anchor_digest
from server.rounds.screening import Screening
from server.rounds.state import RoundState


class Exchange:
    """The exchange with the sites, for all rounds of one run.

    Args:
        federation: The folder.
        messenger: The way to the nodes.
        backend: Makes the candidates.
        log: Where events go.
        run_cache: What is kept of sites between messages.
        ingest: Takes updates.
        check_in: Knows which sites are connected.
        protocols: The versions of the wire protocol that sites speak.
    """

    def __init__(
        self,
        *,
        federation: Federation,
        messenger: Messenger,
        backend: Backend,
        log: EventLog,
        run_cache: RunCache,
        ingest: Ingest,
        check_in: CheckIn,
        protocols: SiteProtocols,
    ) -> None:
        self._federation, self._messenger, self._backend = federation, messenger, backend
        self._log, self._run_cache = log, run_cache
        self._ingest, self._check_in, self._protocols = ingest, check_in, protocols

    @classmethod
    def open(
        cls,
        federation: Federation,
        *,
        messenger: Messenger,
        backend: Backend,
        log: EventLog,
        run_cache: RunCache,
        names: Callable[[], Mapping[int, str]],
        protocols: SiteProtocols,
    ) -> Exchange:
        """Reads the admission history and takes up what a killed run left in the run cache.

        The arguments are those of the class and of `CheckIn`.
        """
        ingest = Ingest(
            federation=federation,
            run_cache=run_cache,
            screening=Screening.open(federation, run_cache.screened),
            log=log,
        )
        check_in = CheckIn(
            federation=federation,
            messenger=messenger,
            log=log,
            run_cache=run_cache,
            names=names,
            protocols=protocols,
            take_late=ingest.take_late,
        )
        return cls(
            federation=federation,
            messenger=messenger,
            backend=backend,
            log=log,
            run_cache=run_cache,
            ingest=ingest,
            check_in=check_in,
            protocols=protocols,
        )

    def begin(self, number: int) -> RoundState:
        """Begins a new round: asks all connected nodes which sites they are."""
        self._ingest.drop_uncommitted()
        promoted = self._federation.releases.promoted()
        BodyUpdates.of(self._federation.root).drop_all_but(promoted.id if promoted else "")
        is_over = deadline(self._federation.config.round.deadline_s)
        sites = self._check_in.begin_round(self._federation.anchor(promoted), is_over)
        remark = {}
        if self._federation.config.target.adapt == "all" and not promoted and sites < FEW_SITES:
            remark["remark"] = (
                f"of fewer than {FEW_SITES} whole networks the gate often rejects the release; "
                'a new federation with target.adapt = "head" needs only two sites'
            )
        self._log.emit(events.ROUND_STARTED, round=number, sites=sites, **remark)
        return round_state.begun(number, promoted.id if promoted else "", sites)

    def run(self, state: RoundState) -> RoundState:
        """Asks every site once, first the connected ones, then those that have joined meanwhile.

        A site with a record in the zoo, an entry in quarantine or a rejection in the journal is not
        asked again. A site that was silent or broke is asked again if it comes back as another
        node, and a site that broke once more as the same node: it may have been restarted in its
        task.
        """
        began = time.monotonic()
        federation, limits = self._federation, self._federation.config.round
        is_late = deadline(limits.deadline_s)
        promoted = federation.releases.read(state.parent) if state.parent else None
        probed_from, next_anchor = federation.anchor(promoted), federation.next_anchor(promoted)
        entries = federation.quarantine.list()
        self._ingest.begin_round(state.sites, entries)
        current = RoundExchange.open(state, federation, self._log, entries)

        def is_over() -> bool:
            if is_late():
                return True
            # If all updates are needed, those of sites that join are waited for too.
            enough = limits.enough * (max(state.sites, current.asked) - len(current.unable))
            return limits.enough < 1 and len(current.accepted) >= enough - 1e-9

        asked: Counter[tuple[str, int]] = Counter()
        while True:
            present = self._check_in.probe(probed_from, is_over)
            current.end_check_in(self._check_in.failed_sites())
            missing = [
                site
                for site in present
                if site not in current.settled
                and asked[site, self._check_in.node_of(site)] < (2 if site in current.broken else 1)
            ]
            if limits.enough < 1 or limits.deadline_s:
                # An exchange that ends early is not to hear the same sites in each round.
                missing.sort(key=lambda site: sha256(f"{state.number}/{site}".encode()).digest())
            if not missing or is_over():
                break
            asked.update((site, self._check_in.node_of(site)) for site in missing)
            requests = self._requests(current, missing, anchor_digest(probed_from), next_anchor)
            for look in self._messenger.looks(
                TASK_ACTION, requests, wait_for_late=True, is_over=is_over
            ):
                self._take(current, look)
        self._ingest.end_round()
        result = current.result(
            federation,
            silent_nodes=self._check_in.silent_nodes(),
            seconds=round(time.monotonic() - began, 3),
        )
        return round_state.exchanged(state, result, limits)

    def _requests(
        self, current: RoundExchange, sites: Sequence[str], probed_from: str, next_anchor: Tensor
    ) -> Iterator[SiteRequest]:
        """Makes one task for each site, when it is about to be sent.

        Args:
            current: The round.
            sites: Names.
            probed_from: Digest of the anchor that the sites' contexts started from.
            next_anchor: (D,) float32, where the probes of these tasks start.
        """
        config, state = self._federation.config, current.state
        release = self._federation.releases.read(state.parent) if state.parent else None
        has_body, chain = self._federation.body is not None, self._federation.chain(release)
        body = self._federation.anchor(release) if has_body and release else None
        for site, candidates in self._candidates(state, sites, probed_from):
            content = pack_task(
                Task(
                    frame=self._federation.frame,
                    anchor=next_anchor,
                    round=state.number,
                    release=state.parent,
                    recipe=config.recipe(state.parent),
                    candidates=candidates if state.parent else (),
                    body=body,
                    chain=chain,
                    temperatures=release.temperatures if release else (),
                ),
                protocol=asked_in(self._protocols, site, self._federation.frame),
                may_code=self._protocols.coded and self._federation.frame.may_be_coded,
            )
            current.send(site, candidates, size_bytes(content))
            yield SiteRequest(
                self._check_in.node_of(site), content, site, state.number, state.parent
            )

    def _candidates(
        self, state: RoundState, sites: Sequence[str], probed_from: str
    ) -> Iterator[tuple[str, CandidateSet]]:
        if not state.parent:
            start = {ANCHOR: self._federation.first_start}
            return ((site, (start,)) for site in sites)
        contexts = self._run_cache.contexts(probed_from, tuple(sites))
        return self._backend.candidates(state.parent, contexts)

    def _take(self, current: RoundExchange, look: list[SiteReply]) -> None:
        """Ends the tasks whose replies have come together, once all that is accepted is durable."""
        ended = []
        try:
            while look:
                reply = look.pop(0)
                if reply.late:
                    self._ingest.take_late(reply)
                else:
                    ended.append(self._taken(current, reply))
        finally:
            # What was screened before an error is kept: Flower hands out no reply twice.
            self._ingest.commit()
            for entry, chosen in ended:
                current.end(entry, chosen)

    def _taken(
        self, current: RoundExchange, reply: SiteReply
    ) -> tuple[JournalEntry, tuple[str, ...]]:
        """Screens one reply; returns how its task ends, and the kinds of the starts chosen."""
        note_answer(self._protocols, reply)
        site, number = reply.request.site, current.state.number
        candidates, bytes_down = current.sent(site)
        outcome = self._ingest.take(reply, candidates)
        if outcome.code == "silent":
            self._run_cache.keep_candidates(number, site, candidates)
        elif outcome.code not in PASSING:
            # The site has come back as another node; a late reply of its earlier one is ignored.
            self._run_cache.drop_candidates(number, site)
        entry = JournalEntry(
            site=site,
            code=outcome.code,
            reason=outcome.reason,
            finding=outcome.finding,
            bytes_up=reply.size_bytes,
            bytes_down=bytes_down,
        )
        return entry, outcome.chosen
