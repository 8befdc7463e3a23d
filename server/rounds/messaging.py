"""Talking to sites over Flower: requests in a bounded window, every answer handled at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from f2l_fed.config import RoundConfig
from f2l_fed.errors import RoundError
from server.rounds.state import Interrupted

_SHORTEST_S = 0.002


@dataclass(frozen=True, slots=True)
class SiteRequest:
    """What a node is asked.

    Args:
        node: Flower's id of the node.
        content: The records.
        site: Who the node is, as far as is known.
        round: Number of the round that asks.
        release: The release that made what is in it.
    """

    node: int
    content: RecordDict
    site: str = ""
    round: int = 0
    release: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is remembered of a request while it is out: everything but its content."""

    node: int
    site: str
    round: int
    release: str


@dataclass(frozen=True, slots=True)
class SiteReply:
    """What came back.

    Args:
        asked: On what.
        content: The records, or None if there are none.
        failure: "" or why there is no content, as a code: "timeout", "undeliverable", or Flower's
            number.
        size_bytes: Size of the arrays in the answer.
        late: Whether "timeout" has been reported before.
    """

    asked: Asked
    content: RecordDict | None
    failure: str
    size_bytes: int = 0
    late: bool = False

    @property
    def node(self) -> int:
        """Flower's id of the node."""
        return self.asked.node


@dataclass(frozen=True, slots=True, kw_only=True)
class Messenger:
    """A way to ask nodes.

    Args:
        grid: Flower's connection to them.
        config: Window, longest poll interval and timeout.
        stop: Set from outside to give up.
        overdue: Requests whose answers are still taken, by message.
    """

    grid: Grid
    config: RoundConfig
    stop: threading.Event
    overdue: dict[str, Asked] = field(default_factory=dict)

    def connected(self) -> list[int]:
        """Nodes that are there now."""
        return sorted(self.grid.get_node_ids())

    def nodes(self, expected: int, timeout_s: float = 60.0) -> list[int]:
        """Nodes that are there; waits a while for the expected number of them.

        Raises:
            RoundError: If there is none.
        """
        deadline = time.monotonic() + timeout_s
        while len(found := self.connected()) < expected:
            if time.monotonic() > deadline:
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
        over: Callable[[], bool] = lambda: False,
    ) -> Iterator[SiteReply]:
        """Sends requests and yields answers as they come, an unanswered one after the timeout.

        At most ``in_flight`` requests are out, and the next one is not even made before one of
        them is answered; so memory does not grow with the number of nodes. An answer that comes
        twice is yielded once.

        Args:
            kind: Flower message type.
            requests: What to ask; made when they are about to be sent.
            wait_for_late: Whether a request that has timed out may still be answered, now or
                while something else is asked.
            over: Whether to stop waiting; requests that are out then time out at once, and no
                more are made.

        Yields:
            One answer for each request, and those that are late by now.
        """
        source = iter(requests)
        pending: dict[str, tuple[Asked, float]] = {}
        exhausted, moved = False, time.monotonic()
        while not exhausted or pending:
            ended = over()
            exhausted = exhausted or ended
            while not exhausted and len(pending) < self.config.in_flight:
                request = next(source, None)
                if request is None:
                    exhausted = True
                    break
                asked = Asked(request.node, request.site, request.round, request.release)
                identifier = self._send(kind, request)
                # Nothing may hold what was sent longer than Flower does.
                del request
                if not identifier:
                    yield SiteReply(asked, None, "undeliverable")
                    continue
                pending[identifier] = (asked, self._due())
                moved = time.monotonic()
            # Before looking: what came while a slow answer was waited for is not overdue unseen.
            now = time.monotonic()
            replies = self._pull([*pending, *self._some_overdue()])
            came = bool(replies)
            while replies:
                reply = replies.pop(0)
                identifier = reply.metadata.reply_to_message_id
                if identifier in pending:
                    yield _answer(pending.pop(identifier)[0], reply)
                elif identifier in self.overdue:
                    asked = self.overdue.pop(identifier)
                    if not reply.has_error():
                        yield _answer(asked, reply, late=True)
            for identifier in [key for key, (_, due) in pending.items() if ended or due < now]:
                asked, _ = pending.pop(identifier)
                if wait_for_late:
                    self.overdue[identifier] = asked
                yield SiteReply(asked, None, "timeout")
            if came:
                moved = time.monotonic()
            elif pending:
                # Answers tend to come as far apart as they did: none lies long, few looks are vain.
                self._pause((now - moved) / 10)

    def _some_overdue(self) -> list[str]:
        """As many as may be out, in turn: those that all answer at once don't all come at once."""
        chosen = list(self.overdue)[: self.config.in_flight]
        for identifier in chosen:
            self.overdue[identifier] = self.overdue.pop(identifier)
        return chosen

    def _due(self) -> float:
        return time.monotonic() + self.config.timeout_s

    def _send(self, kind: str, request: SiteRequest) -> str | None:
        """Flower's id of the message; none where it is too large, or the node is gone."""
        message = Message(content=request.content, dst_node_id=request.node, message_type=kind)
        return next(iter(self.grid.push_messages([message])), None)

    def _pull(self, identifiers: list[str]) -> list[Message]:
        return list(self.grid.pull_messages(identifiers)) if identifiers else []

    def _pause(self, seconds: float = 0.05) -> None:
        if self.stop.wait(min(max(seconds, _SHORTEST_S), self.config.poll_s)):
            raise Interrupted("stopped", remedy="Start it again; it goes on where it was.")


def deadline(seconds: float) -> Callable[[], bool]:
    """Whether so many seconds have gone by since now; never if there are 0."""
    began = time.monotonic()
    return lambda: 0 < seconds < time.monotonic() - began


def size_bytes(content: RecordDict) -> int:
    """Bytes of all arrays and metrics in a message."""
    arrays, metrics = content.array_records.values(), content.metric_records.values()
    return sum(record.count_bytes() for record in arrays) + sum(
        record.count_bytes() for record in metrics
    )


def _answer(asked: Asked, reply: Message, *, late: bool = False) -> SiteReply:
    if reply.has_error():
        # Flower's reason may quote an exception of the site: only its code is used.
        return SiteReply(asked, None, f"error {reply.error.code}", 0, late)
    return SiteReply(asked, reply.content, "", size_bytes(reply.content), late)
