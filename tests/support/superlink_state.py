"""Flower's own link state with a run that goes on, and messages to its nodes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.superlink.federation.noop_federation_manager import NoOpFederationManager
from flwr.superlink.servicer.fleet import fleet_handlers
from flwr.superlink.servicer.runtime import runtime_handlers

from f2l_fed.wire.reply_bound import ReplyBound
from server.superlink.reply_intake import ReplyIntake


def content(value: float, *, arrays: int = 1, size: int = 3) -> RecordDict:
    return RecordDict(
        {
            "weights": ArrayRecord(
                {f"w{n}": Array(np.full(size, value + n, np.float32)) for n in range(arrays)}
            ),
            "numbers": ConfigRecord({"same": "for all"}),
        }
    )


def message(about: Metadata, what: RecordDict) -> Message:
    made = make_message(about, what)
    made.metadata.__dict__["_message_id"] = made.object_id
    return made


def reply_to(asked: Message, what: RecordDict, **other: Any) -> Message:
    """A valid reply of the asked node, or one with other metadata."""
    about, now = asked.metadata, time.time()
    fields = {
        "run_id": about.run_id,
        "message_id": "",
        "src_node_id": about.dst_node_id,
        "dst_node_id": SUPERLINK_NODE_ID,
        "reply_to_message_id": about.message_id,
        "group_id": about.group_id,
        "created_at": now,
        "ttl": about.created_at + about.ttl - now,
        "message_type": about.message_type,
    }
    return message(Metadata(**{**fields, **other}), what)


class SuperLinkState:
    """A link state behind the intake of replies, with two nodes that are online.

    Args:
        bound: The limits of a reply.
    """

    def __init__(self, bound: ReplyBound) -> None:
        self.state = InMemoryLinkState(NoOpFederationManager(), InMemoryObjectStore())
        self.now = 0.0
        self.intake = ReplyIntake(bound, runtime_handlers.pull_messages, lambda: self.now)
        self.run = self.state.create_run(
            None, None, "f", {}, NOOP_FEDERATION_ID, None, "a", TaskType.SERVER_APP
        )
        self.task = next(iter(self.state.task_store.values()))
        assert self.state.claim_task(self.task.task_id)
        assert self.state.activate_task(self.task.task_id)
        self.nodes = [self.state.create_node("a", "a", b"%d" % n, 60, name=f"s{n}") for n in (0, 1)]
        for node in self.nodes:
            assert self.state.activate_node(node, 60)

    def message_to(
        self, node: int, value: float = 0.5, *, what: RecordDict | None = None
    ) -> Message:
        """A message to a node, not sent yet."""
        about = Metadata(
            run_id=self.run,
            message_id="",
            src_node_id=SUPERLINK_NODE_ID,
            dst_node_id=node,
            reply_to_message_id="",
            group_id="",
            created_at=time.time(),
            ttl=3600.0,
            message_type="train.task",
        )
        return message(about, what or content(value))

    def beat(self) -> None:
        """The signs of life of the run and the nodes, without which both end after some time."""
        assert self.state.acknowledge_task_heartbeat(self.task.task_id)
        for node in self.nodes:
            assert self.state.acknowledge_node_heartbeat(node, 60)

    def announce(self, asked: Message) -> str:
        """Stores the head of a message; the session that its parts are sent in."""
        session = self.state.start_session(self.run)
        self.state.store_message_and_object_tree(asked, get_object_tree(asked), session)
        return session

    def give(self, node: int, value: float = 0.5, *, what: RecordDict | None = None) -> Message:
        """A message that a node has been sent, whole."""
        asked = self.message_to(node, value, what=what)
        session = self.announce(asked)
        for id, part in get_all_nested_objects(asked).items():
            assert self.state.store_object(self.run, session, id, part.deflate())
        return asked

    def ask(self, node: int, value: float = 0.5, *, what: RecordDict | None = None) -> Message:
        """A message that a node has been sent, and has received."""
        asked = self.give(node, value, what=what)
        given = fleet_handlers.pull_messages(
            PullMessagesRequest(node=Node(node_id=node)), self.state, self.state.object_store
        )
        assert given.messages_list[0].metadata.message_id == asked.metadata.message_id
        self.state.object_store.delete(asked.metadata.message_id)
        return asked

    def begin(self, node: int, reply: Message, **changes: Any) -> Any:
        """Pushes the head of a reply."""
        head = message_to_proto(reply)
        head.content.Clear()
        fields = {
            "node": Node(node_id=node),
            "messages_list": [head],
            "message_object_trees": [get_object_tree(reply)],
        }
        return self.intake.push_messages(PushMessagesRequest(**{**fields, **changes}), self.state)

    def push(self, node: int, session: str, id: str, data: bytes) -> bool:
        request = PushObjectRequest(
            node=Node(node_id=node),
            run_id=self.run,
            session_id=session,
            object_id=id,
            object_content=data,
        )
        return bool(self.intake.push_object(request, self.state).stored)

    def send(self, node: int, reply: Message) -> None:
        """Pushes all of a reply."""
        begun = self.begin(node, reply)
        parts = get_all_nested_objects(reply)
        for id in begun.objects_to_push:
            assert self.push(node, begun.session_id, id, parts[id].deflate())

    def heard(self, *asked: Message) -> dict[str, Any]:
        """Heads of the replies that the ServerApp's poll gets, by the message that they answer."""
        request = PullAppMessagesRequest(message_ids=[one.metadata.message_id for one in asked])
        answer = self.intake.pull_messages(request, self.state, self.task)
        return {one.metadata.reply_to_message_id: one for one in answer.messages_list}

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Nothing is kept of what happens in the block."""

        def kept() -> tuple[Any, ...]:
            state, store = self.state, self.state.object_store
            return (
                set(state.message_ins_store),
                set(state.message_res_store),
                set(store.store),
                set(self.intake._open),
            )

        before = kept()
        yield
        assert kept() == before
