"""A Grid without a network: each message goes straight to a ClientApp in this process.

Messages and replies pass through Flower's own wire form, so what can't be sent fails here too,
and a site never shares an array with the server. As with the real grids, an exception of the
ClientApp comes back as an error message, and the reply of a node that fell silent is just absent.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from itertools import count

from flwr.app import Context, Error, Message, RecordDict, UserConfig
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

_RUN_ID = 1


class LoopbackGrid(Grid):
    """Calls ``client_app`` when its reply is pulled, in the order of the messages' pushing.

    Args:
        client_app: The app of every node.
        node_configs: Node id to what the ClientApp finds as ``context.node_config``.
        run_config: What the ClientApp finds as ``context.run_config``.
        silent: Nodes that never answer, as after a crash of the site.
    """

    def __init__(
        self,
        client_app: ClientApp,
        node_configs: Mapping[int, UserConfig],
        *,
        run_config: UserConfig | None = None,
        silent: Collection[int] = (),
    ) -> None:
        self._client_app = client_app
        self._silent = frozenset(silent)
        self._contexts = {
            node: Context(_RUN_ID, node, dict(config), RecordDict(), dict(run_config or {}))
            for node, config in node_configs.items()
        }
        self._waiting: dict[str, Message] = {}
        self._serial = count(1)
        self._run = Run.create_empty(run_id=_RUN_ID)
        # A Message reads its sender from here, which in a real run the runtime has set
        TaskIdentity.run_id = _RUN_ID
        TaskIdentity.task_id = 1
        TaskIdentity.node_id = SUPERLINK_NODE_ID

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        pushed = []
        for message in messages:
            sent, message_id = _through_the_wire(message), f"message-{next(self._serial)}"
            sent.metadata.__dict__["_message_id"] = message_id
            self._waiting[message_id] = sent
            pushed.append(message_id)
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        asked = set(message_ids)
        ready = [
            message_id
            for message_id, message in self._waiting.items()
            if message_id in asked and message.metadata.dst_node_id not in self._silent
        ]
        return [self._answer(self._waiting.pop(message_id)) for message_id in ready]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        pushed = list(self.push_messages(messages))
        replies = list(self.pull_messages(pushed))
        if len(replies) < len(pushed):
            if timeout is None:
                raise TimeoutError("a silent node never answers, and no timeout was given")
            time.sleep(timeout)
        return replies

    def _answer(self, message: Message) -> Message:
        context = self._contexts[message.metadata.dst_node_id]
        try:
            reply = self._client_app(message, context)
        except Exception as problem:  # the process boundary of a real site
            reason = f"{type(problem)}:<'{problem}'>"
            error = Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=reason)
            return Message(error, reply_to=message)
        return _through_the_wire(reply)


def _through_the_wire(message: Message) -> Message:
    return message_from_proto(message_to_proto(message))
