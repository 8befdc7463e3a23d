"""The check-in of a run: which node speaks for which site, and the contexts of the sites."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from flwr.app import RecordDict
from torch import Tensor

from f2l_fed import events
from f2l_fed.errors import F2LError
from f2l_fed.events import EventLog
from f2l_fed.wire.messages import PROBE_ACTION, ProbeRequest
from f2l_fed.wire.packing import pack_probe_request, unpack_probe_reply
from f2l_fed.wire.refusals import OLD_PROTOCOL
from server.federation.folder import Federation
from server.rounds.ingest import unanswered
from server.rounds.journal import Code, JournalEntry
from server.rounds.messaging import Messenger, SiteReply, SiteRequest, Unanswered
from server.rounds.protocols import SiteProtocols, asked_in, note_answer, too_old
from server.rounds.run_cache import RunCache, anchor_digest

LONGEST_NAME = 100
"""Most characters of the name that a node gives itself; a registered one has at most 63."""


class CheckIn:
    """The check-in: finds out which sites are connected and asks them for their probes.

    Args:
        federation: The folder, which says what a probe is.
        messenger: The way to the nodes.
        log: Where events go.
        run_cache: Holds the contexts.
        names: Looks up the names that are bound to nodes' keys. Where there are any, nobody else is
            asked; without, as in a simulation, nodes go by the name they give.
        protocols: The versions of the wire protocol that sites speak.
        take_late: Takes replies to earlier tasks that come in meanwhile.
    """

    def __init__(
        self,
        *,
        federation: Federation,
        messenger: Messenger,
        log: EventLog,
        run_cache: RunCache,
        names: Callable[[], Mapping[int, str]],
        protocols: SiteProtocols,
        take_late: Callable[[SiteReply], None],
    ) -> None:
        self._federation, self._messenger, self._log = federation, messenger, log
        self._run_cache, self._names, self._take_late = run_cache, names, take_late
        self._protocols = protocols
        self._node_of: dict[str, int] = {}
        # Nodes that gave the name of another one; they are not asked again.
        self._conflicting: set[int] = set()
        # Nodes that did not introduce themselves; they are not asked again in this round, since
        # each silent one costs the whole timeout.
        self._failed: dict[int, JournalEntry] = {}

    def node_of(self, site: str) -> int:
        """The node of a site that has introduced itself."""
        return self._node_of[site]

    def silent_nodes(self) -> int:
        """The number of connected nodes of unknown name that did not introduce themselves."""
        nameless = {node for node, entry in self._failed.items() if not entry.site}
        return len(nameless & set(self._messenger.connected()))

    def failed_sites(self) -> list[JournalEntry]:
        """The known sites that did not introduce themselves in this round, each with its reason."""
        return [entry for entry in self._failed.values() if entry.site]

    def begin_round(self, anchor: Tensor, is_over: Callable[[], bool]) -> int:
        """Asks all connected nodes; returns the number of sites, including the silent ones.

        Args:
            anchor: (D,) float32, where the probes start.
            is_over: Whether to stop waiting.
        """
        self._failed.clear()
        known = len(self.probe(anchor, is_over))
        return known + len(self._failed)

    def probe(self, anchor: Tensor, is_over: Callable[[], bool]) -> tuple[str, ...]:
        """Asks the connected nodes for their probes if their site or its context is unknown.

        Args:
            anchor: (D,) float32, where the probes start.
            is_over: Whether to stop waiting.

        Returns:
            Sorted names of the connected sites with a known context.
        """
        nodes = self._messenger.connected()
        # Keys are registered and renewed while a run goes on.
        digest, bound = anchor_digest(anchor), self._names()
        connected = {node for node in nodes if node in bound or not bound}
        site_of = {node: site for site, node in self._node_of.items()}
        for node in connected & bound.keys():
            if self._run_cache.has_context(digest, bound[node]):
                if self._node_of.get(bound[node]) not in connected:
                    self._node_of[bound[node]] = node
                site_of[node] = bound[node]
        unknown = [
            node
            for node in nodes
            if node in connected
            and node not in self._conflicting | self._failed.keys()
            and not (node in site_of and self._run_cache.has_context(digest, site_of[node]))
        ]
        done = 0
        requests = self._requests(unknown, bound, anchor)
        for reply in self._messenger.ask(PROBE_ACTION, requests, is_over=is_over):
            if reply.late:
                self._take_late(reply)
                continue
            note_answer(self._protocols, reply)
            site, failure = self._introduce(reply, digest, connected, bound)
            if failure is not None:
                name = failure.site
                if reply.node not in self._conflicting:
                    self._failed[reply.node] = failure
                self._log.emit(
                    events.SITE_FAILED,
                    node=str(reply.node),
                    **({"site": name} if name else {}),
                    code=failure.code,
                    reason=failure.reason,
                    finding=failure.finding,
                )
            else:
                done += 1
                self._log.emit(events.SITE_PROBED, site=site, done=done, sites=len(unknown))
        return tuple(
            sorted(
                site
                for site, node in self._node_of.items()
                if node in connected and self._run_cache.has_context(digest, site)
            )
        )

    def _requests(
        self, nodes: list[int], bound: Mapping[int, str], anchor: Tensor
    ) -> Iterator[SiteRequest]:
        """Makes the request to each node, once for each version of the protocol."""
        frame, packed = self._federation.probe_frame, dict[int, RecordDict]()
        chain = self._federation.chain_to(anchor)
        for node in nodes:
            site = bound.get(node, "")
            version = asked_in(self._protocols, site, frame)
            if version not in packed:
                request = ProbeRequest(frame=frame, anchor=anchor, chain=chain)
                packed[version] = pack_probe_request(request, protocol=version)
            yield SiteRequest(node, packed[version], site)

    def _introduce(
        self, reply: SiteReply, digest: str, connected: set[int], bound: Mapping[int, str]
    ) -> tuple[str, JournalEntry | None]:
        """Keeps the probes in a reply; returns the site and None, or "" and what is wrong."""
        site = bound.get(reply.node, "")

        def failed(reason: str, code: Code = "garbage", finding: str = "") -> JournalEntry:
            return JournalEntry(site=site, code=code, reason=reason, finding=finding)

        content = reply.unpack()
        if isinstance(content, Unanswered):
            site = site or self._claimed(content.site, reply.node, connected)
            if text := too_old(reply, self._federation.frame):
                return "", failed(text, "unable", OLD_PROTOCOL)
            outcome = unanswered(content)
            return "", failed(outcome.reason, outcome.code, outcome.finding)
        try:
            told = unpack_probe_reply(
                content,
                self._federation.target.layout,
                body=self._federation.body_layout,
                episodes=self._federation.probe_frame.episodes,
            )
        except F2LError as error:
            return "", failed(str(error))
        # As in admission: nothing finite can be computed from longer ones.
        if not bool(told.probes.square().sum(dim=1).isfinite().all()):
            return "", failed("probes that are not finite")
        site = site or told.site
        if not _is_valid(site):
            site = ""
            return "", failed("not a valid site name")
        owner = self._node_of.get(site, reply.node)
        # A site that was restarted comes back as another node; its earlier node is gone by then.
        if owner != reply.node and owner in connected:
            self._conflicting.add(reply.node)
            site = ""
            return "", failed("the name of another connected site")
        self._node_of[site] = reply.node
        self._run_cache.keep_context(digest, site, told.probes)
        return site, None

    def _claimed(self, name: str, node: int, connected: set[int]) -> str:
        """The name that a node gives itself in a refusal; "" unless it is valid and free."""
        taken = self._node_of.get(name, node)
        free = taken == node or taken not in connected
        return name if _is_valid(name) and free else ""


def _is_valid(site: str) -> bool:
    return bool(site) and site.isprintable() and len(site) <= LONGEST_NAME
