"""A grid whose sites live in another process, so that each side's memory can be seen alone.

The conducting process has an `ApartGrid`; the other one answers with `serve_sites`. Between them
go Flower's own messages as bytes, over a pipe.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from itertools import count
from multiprocessing.connection import Connection

from flwr.app import Message, UserConfig
from flwr.clientapp import ClientApp
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as Wire

from tests.support.loopback import LoopbackGrid


class ApartGrid(LoopbackGrid):
    """The conducting end.

    Args:
        connection: To the sites' process.
        nodes: How many there are, from 1.
    """

    def __init__(self, connection: Connection, nodes: int) -> None:
        super().__init__(ClientApp(), {})
        self._connection, self._nodes = connection, nodes
        self._replies: dict[str, Message] = {}
        self._numbers = count(1)
        # Each side would else wait for the other to read before it writes on.
        threading.Thread(target=self._read, daemon=True).start()

    def get_node_ids(self) -> Iterable[int]:
        return range(1, self._nodes + 1)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        pushed = []
        for message in messages:
            wire, identifier = message_to_proto(message), f"message-{next(self._numbers)}"
            wire.metadata.message_id = identifier
            self._connection.send_bytes(wire.SerializeToString())
            pushed.append(identifier)
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._replies.pop(i) for i in message_ids if i in self._replies]

    def _read(self) -> None:
        while True:
            try:
                reply = message_from_proto(Wire.FromString(self._connection.recv_bytes()))
            except (EOFError, OSError):
                return
            self._replies[reply.metadata.reply_to_message_id] = reply


def serve_sites(
    connection: Connection, client_app: ClientApp, configs: Mapping[int, UserConfig]
) -> None:
    """Answers messages until the other end is closed."""
    sites = LoopbackGrid(client_app, configs)
    while True:
        try:
            message = message_from_proto(Wire.FromString(connection.recv_bytes()))
        except EOFError:
            return
        connection.send_bytes(message_to_proto(sites._answer(message)).SerializeToString())
