"""Which node speaks for which site, and what the sites have said of their tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import RecordDict
from torch import Tensor

from f2l_fed import events
from f2l_fed.errors import F2LError
from f2l_fed.events import EventLog
from f2l_fed.wire.messages import PROBE_ACTION, ProbeRequest
from f2l_fed.wire.packing import pack_probe_request, unpack_probe_reply, unpack_refusal
from server.federation.folder import Federation
from server.rounds.messaging import Messenger, SiteReply, SiteRequest
from server.rounds.run_cache import RunCache, digest


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckIn:
    """The sites of a run.

    Args:
        federation: Says what a probe is.
        talk: The way to the nodes.
        log: Where events go.
        spool: Holds the contexts.
        names: Looks up the names that are bound to nodes' keys. Where there are any, nobody else is
            asked; without, as in a simulation, nodes go by the name they give.
        node_of: The node of every site that has introduced itself.
        late: Takes answers to earlier tasks that come in meanwhile.
        strangers: Nodes that go by the name of another; they are not asked again.
        unheard: Nodes that did not introduce themselves; they are not asked again in this round,
            since each silent one costs the whole timeout.
    """

    federation: Federation
    talk: Messenger
    log: EventLog
    spool: RunCache
    names: Callable[[], Mapping[int, str]]
    late: Callable[[SiteReply], None]
    node_of: dict[str, int] = field(default_factory=dict)
    strangers: set[int] = field(default_factory=set)
    unheard: set[int] = field(default_factory=set)

    def call(
        self,
        nodes: Sequence[int],
        anchored: Tensor,
        over: Callable[[], bool] = lambda: False,
    ) -> tuple[str, ...]:
        """Asks those nodes for their probes whose site or context is not known.

        Args:
            nodes: That are connected.
            anchored: (D,) float32, where the probes are to start.
            over: Whether to stop waiting.

        Returns:
            Sorted names of the connected sites whose context is known.
        """
        # Keys are registered and renewed while a run goes on.
        name, bound = digest(anchored), self.names()
        connected = {node for node in nodes if node in bound or not bound}
        site_of = {node: site for site, node in self.node_of.items()}
        for node in connected & bound.keys():
            if self.spool.has_context(name, bound[node]):
                if self.node_of.get(bound[node]) not in connected:
                    self.node_of[bound[node]] = node
                site_of[node] = bound[node]
        unknown = [
            node
            for node in nodes
            if node in connected
            and node not in self.strangers | self.unheard
            and not (node in site_of and self.spool.has_context(name, site_of[node]))
        ]
        request = pack_probe_request(ProbeRequest(frame=self.federation.frame, anchor=anchored))
        done = 0
        requests = (SiteRequest(node, request) for node in unknown)
        for answer in self.talk.ask(PROBE_ACTION, requests, over=over):
            if answer.late:
                self.late(answer)
                continue
            site, failure = self._introduced(answer, name, connected, bound)
            if failure:
                if answer.node not in self.strangers:
                    self.unheard.add(answer.node)
                self.log.emit(events.SITE_FAILED, node=str(answer.node), reason=failure)
            else:
                done += 1
                self.log.emit(events.SITE_PROBED, site=site, done=done, sites=len(unknown))
        return tuple(
            sorted(
                site
                for site, node in self.node_of.items()
                if node in connected and self.spool.has_context(name, site)
            )
        )

    def _introduced(
        self, answer: SiteReply, name: str, connected: set[int], bound: Mapping[int, str]
    ) -> tuple[str, str]:
        """The site behind an answer, or what is wrong with it."""
        content, failure, _ = content_of(answer)
        if content is None:
            return "", failure
        try:
            reply = unpack_probe_reply(content, self.federation.target.layout)
        except F2LError as error:
            return "", str(error)
        if len(reply.probes) != self.federation.config.probe.episodes:
            return "", "another number of probes than was asked"
        # As admission has it: of longer ones nothing finite can be made.
        if not bool(reply.probes.square().sum(dim=1).isfinite().all()):
            return "", "probes that are not finite"
        site = bound.get(answer.node, reply.site)
        if not (site and site.isprintable()):
            return "", "a name that the zoo can't take"
        owner = self.node_of.get(site, answer.node)
        # A site that was restarted comes back as another node; the one it was is gone by then.
        if owner != answer.node and owner in connected:
            self.strangers.add(answer.node)
            return "", "a name that another site has"
        self.node_of[site] = answer.node
        self.spool.keep_context(name, site, reply.probes)
        return site, ""


def content_of(answer: SiteReply) -> tuple[RecordDict | None, str, bool]:
    """The content of an answer, or why there is none, and whether that was the site's own will."""
    if answer.content is None:
        return None, answer.failure, False
    try:
        refusal = unpack_refusal(answer.content)
    except F2LError as error:
        return None, str(error), True
    if refusal is None:
        return answer.content, "", True
    return None, f"refused: {refusal.code}", True
