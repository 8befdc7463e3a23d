"""Talking to sites over Flower: requests in a bounded window, every answer handled at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from f2l_fed.config import RoundConfig
from f2l_fed.errors import RoundError


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back from a node.

    Args:
        node: Flower's id of the node.
        content: The records, or None if there are none.
        failure: "" or why there is no content, as a code.
        size_bytes: Size of the arrays in the answer.
    """

    node: int
    content: RecordDict | None
    failure: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """A way to ask nodes.

    Args:
        grid: Flower's connection to them.
        config: Window, poll interval and timeout.
        stop: Set from outside to give up.
    """

    grid: Grid
    config: RoundConfig
    stop: threading.Event

    def nodes(self, expected: int, timeout_s: float = 60.0) -> list[int]:
        """Nodes that are there; waits a while for the expected number of them.

        Raises:
            RoundError: If there is none.
        """
        deadline = time.monotonic() + timeout_s
        while len(found := sorted(self.grid.get_node_ids())) < expected:
            if time.monotonic() > deadline:
                break
            self._pause()
        if not found:
            raise RoundError(
                "no site is connected", remedy="Start the sites, then start the round again."
            )
        return found

    def ask(self, kind: str, requests: Iterable[tuple[int, RecordDict]]) -> Iterator[Answer]:
        """Sends requests and yields answers as they come, an unanswered one after the timeout.

        At most ``in_flight`` requests are out, and the next one is not even made before one of
        them is answered; so memory does not grow with the number of nodes.

        Args:
            kind: Flower message type.
            requests: Node and content.

        Yields:
            One answer for each request.
        """
        source = iter(requests)
        pending: dict[str, tuple[int, float]] = {}
        exhausted = False
        while not exhausted or pending:
            while not exhausted and len(pending) < self.config.in_flight:
                request = next(source, None)
                if request is None:
                    exhausted = True
                    break
                node, content = request
                (identifier,) = self.grid.push_messages(
                    [Message(content=content, dst_node_id=node, message_type=kind)]
                )
                pending[identifier] = (node, time.monotonic() + self.config.timeout_s)
            replies = list(self.grid.pull_messages(list(pending))) if pending else []
            for reply in replies:
                node, _ = pending.pop(reply.metadata.reply_to_message_id)
                yield _answer(node, reply)
            now = time.monotonic()
            for identifier in [key for key, (_, due) in pending.items() if due < now]:
                node, _ = pending.pop(identifier)
                yield Answer(node, None, "timeout", 0)
            if pending and not replies:
                self._pause()

    def _pause(self) -> None:
        if self.stop.wait(self.config.poll_s):
            raise RoundError("stopped")


def size_bytes(content: RecordDict) -> int:
    """Bytes of all arrays and metrics in a message."""
    arrays, metrics = content.array_records.values(), content.metric_records.values()
    return sum(record.count_bytes() for record in arrays) + sum(
        record.count_bytes() for record in metrics
    )


def _answer(node: int, reply: Message) -> Answer:
    if reply.has_error():
        # Flower's reason may quote an exception of the site: only its code is used.
        return Answer(node, None, f"error {reply.error.code}", 0)
    return Answer(node, reply.content, "", size_bytes(reply.content))
