"""Messages to sites over Flower: requests in a bounded window, every reply handled at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from f2l_fed.config import RoundConfig
from f2l_fed.errors import F2LError, RoundError
from f2l_fed.wire.packing import unpack_refusal
from f2l_fed.wire.refusals import CATALOGUE, FAILED, reason_of, told
from server.rounds.state import Interrupted

_SHORTEST_S = 0.002


@dataclass(frozen=True, slots=True)
class SiteRequest:
    """A request to a node.

    Args:
        node: Flower's id of the node.
        content: The records.
        site: Name of the node's site, "" if it is unknown.
        round: Number of the round that asks.
        release: The release that made the candidates in the content.
    """

    node: int
    content: RecordDict
    site: str = ""
    round: int = 0
    release: str = ""


@dataclass(frozen=True, slots=True)
class RequestHeader:
    """A request without its content, kept while the request is out; see `SiteRequest`."""

    node: int
    site: str
    round: int
    release: str


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A request without an answer.

    Args:
        code: Key of `f2l_fed.wire.refusals.CATALOGUE`, or a code that is unknown here.
        reason: For people.
        refused: Whether the site itself has said so.
        site: The name that it has given itself then.
    """

    code: str
    reason: str
    refused: bool = False
    site: str = ""

    @property
    def able(self) -> bool:
        """Whether the site counts for the quorum all the same."""
        return not self.refused or reason_of(self.code).able


@dataclass(frozen=True, slots=True)
class SiteReply:
    """A reply to a request, or its absence.

    Args:
        request: The request.
        content: The records, or None if there are none.
        failure: "" or why there is no content, as a code: "timeout", "undeliverable", or Flower's
            number.
        size_bytes: Size of the arrays in the reply.
        late: Whether "timeout" has been reported before.
    """

    request: RequestHeader
    content: RecordDict | None
    failure: str
    size_bytes: int = 0
    late: bool = False

    @property
    def node(self) -> int:
        """Flower's id of the node."""
        return self.request.node

    def unpack(self) -> RecordDict | Unanswered:
        """The content, or why there is none; a refusal of the site is no content."""
        if self.content is None:
            code = {"timeout": "silent"}.get(self.failure, self.failure)
            code = code if code in CATALOGUE else FAILED
            return Unanswered(code, f"{CATALOGUE[code].text} ({self.failure})")
        try:
            refusal = unpack_refusal(self.content)
        except F2LError as error:
            return Unanswered("garbage", str(error), refused=True)
        if refusal is None:
            return self.content
        return Unanswered(
            refusal.code, f"refused: {told(refusal.code)}", refused=True, site=refusal.site
        )


class Messenger:
    """The messenger: sends requests to nodes and yields their replies.

    Args:
        grid: Flower's connection to the nodes.
        config: Window, longest poll interval and timeout.
        stop: Set from outside to give up.
    """

    def __init__(self, *, grid: Grid, config: RoundConfig, stop: threading.Event) -> None:
        self._grid, self._config, self._stop = grid, config, stop
        # Requests that have timed out and whose replies are still taken, by message.
        self._overdue: dict[str, RequestHeader] = {}

    def connected(self) -> list[int]:
        """The nodes that are connected now, sorted."""
        return sorted(self._grid.get_node_ids())

    def wait_for_nodes(self, expected: int, timeout_s: float = 60.0) -> list[int]:
        """Waits for the expected number of nodes; returns those connected after the timeout.

        Raises:
            RoundError: If there is none.
        """
        until = time.monotonic() + timeout_s
        while len(found := self.connected()) < expected:
            if time.monotonic() > until:
                break
            self._pause()
        if not found:
            raise RoundError(
                "no site is connected", remedy="Start the sites, then start the round again."
            )
        return found

    def ask(
        self,
        kind: str,
        requests: Iterable[SiteRequest],
        *,
        wait_for_late: bool = False,
        is_over: Callable[[], bool] = lambda: False,
    ) -> Iterator[SiteReply]:
        """Sends requests and yields replies as they come, an unanswered request after its timeout.

        At most ``in_flight`` requests are out, and the next one is not even made before one of
        them is answered; so memory does not grow with the number of nodes. A reply that comes
        twice is yielded once.

        Args:
            kind: Flower message type.
            requests: The requests, made when they are about to be sent.
            wait_for_late: Whether a request that has timed out may still be answered, now or
                during a later call.
            is_over: Whether to stop waiting; requests that are out then time out at once, and no
                more are made.

        Yields:
            One reply for each request, and the late ones that have come by now.
        """
        for look in self.looks(kind, requests, wait_for_late=wait_for_late, is_over=is_over):
            while look:
                yield look.pop(0)

    def looks(
        self,
        kind: str,
        requests: Iterable[SiteRequest],
        *,
        wait_for_late: bool = False,
        is_over: Callable[[], bool] = lambda: False,
    ) -> Iterator[list[SiteReply]]:
        """The replies of `ask`, together those that one look at Flower has brought.

        Yields:
            At most ``in_flight`` replies, and as many late ones; never none. The list may be
            emptied, so that nothing holds a reply that is done with.
        """
        source = iter(requests)
        pending: dict[str, tuple[RequestHeader, float]] = {}
        exhausted, moved = False, time.monotonic()
        while not exhausted or pending:
            ended = is_over()
            exhausted = exhausted or ended
            while not exhausted and len(pending) < self._config.in_flight:
                request = next(source, None)
                if request is None:
                    exhausted = True
                    break
                header = RequestHeader(request.node, request.site, request.round, request.release)
                identifier = self._send(kind, request)
                # Nothing may hold the content longer than Flower does.
                del request
                if not identifier:
                    yield [SiteReply(header, None, "undeliverable")]
                    continue
                pending[identifier] = (header, self._due())
                moved = time.monotonic()
            # Before the pull: a reply that came while a slow one was waited for is not overdue.
            now = time.monotonic()
            messages = self._pull([*pending, *self._some_overdue()])
            came, look = bool(messages), list[SiteReply]()
            while messages:
                message = messages.pop(0)
                identifier = message.metadata.reply_to_message_id
                if identifier in pending:
                    look.append(_reply(pending.pop(identifier)[0], message))
                elif identifier in self._overdue:
                    header = self._overdue.pop(identifier)
                    if not message.has_error():
                        look.append(_reply(header, message, late=True))
                del message
            if look:
                yield look
            for identifier in [key for key, (_, due) in pending.items() if ended or due < now]:
                header, _ = pending.pop(identifier)
                if wait_for_late:
                    self._overdue[identifier] = header
                yield [SiteReply(header, None, "timeout")]
            if came:
                moved = time.monotonic()
            elif pending:
                # Replies tend to come as far apart as before: none waits long, few pulls are vain.
                self._pause((now - moved) / 10)

    def _some_overdue(self) -> list[str]:
        """As many as may be out, in turn: replies that come together aren't pulled together."""
        chosen = list(self._overdue)[: self._config.in_flight]
        for identifier in chosen:
            self._overdue[identifier] = self._overdue.pop(identifier)
        return chosen

    def _due(self) -> float:
        return time.monotonic() + self._config.timeout_s

    def _send(self, kind: str, request: SiteRequest) -> str | None:
        """Flower's id of the message; None if it is too large, or the node is gone."""
        message = Message(content=request.content, dst_node_id=request.node, message_type=kind)
        return next(iter(self._grid.push_messages([message])), None)

    def _pull(self, identifiers: list[str]) -> list[Message]:
        return list(self._grid.pull_messages(identifiers)) if identifiers else []

    def _pause(self, seconds: float = 0.05) -> None:
        if self._stop.wait(min(max(seconds, _SHORTEST_S), self._config.poll_s)):
            raise Interrupted("stopped", remedy="Start it again; it goes on where it was.")


def deadline(seconds: float) -> Callable[[], bool]:
    """Returns a check whether so many seconds have passed since now; 0 stands for no limit."""
    began = time.monotonic()
    return lambda: 0 < seconds < time.monotonic() - began


def size_bytes(content: RecordDict) -> int:
    """Bytes of all arrays and metrics in a message."""
    arrays, metrics = content.array_records.values(), content.metric_records.values()
    return sum(record.count_bytes() for record in arrays) + sum(
        record.count_bytes() for record in metrics
    )


def _reply(header: RequestHeader, message: Message, *, late: bool = False) -> SiteReply:
    if message.has_error():
        # Flower's reason may quote an exception of the site: only its code is used.
        return SiteReply(header, None, f"error {message.error.code}", 0, late)
    return SiteReply(header, message.content, "", size_bytes(message.content), late)
