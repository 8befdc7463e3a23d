"""A reply on its way from a site, and its way on into Flower's stores."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from flwr.app import Error, Message, Metadata
from flwr.app.message import make_message
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_object_tree

from server.superlink.reply_check import ReplyTree


@dataclass(slots=True, kw_only=True, eq=False)
class Upload:
    """A reply of which some objects are still to come.

    Args:
        node: The node that sends it.
        head: Its head as it came.
        reply: The same for Flower's state.
        asked: The message that it answers.
        objects: Its object tree as it came.
        tree: The same, read.
        session: Id that the node sends with each object.
        touched: Time of its latest object, in seconds of a monotonic clock.
        contents: The objects so far.
        size_bytes: Bytes of these, each as often as it occurs.
    """

    node: int
    head: ProtoMessage
    reply: Message
    asked: Message
    objects: ObjectTree
    tree: ReplyTree
    session: str = field(default_factory=lambda: str(uuid4()))
    touched: float = field(default_factory=time.monotonic)
    contents: dict[str, bytes] = field(default_factory=dict)
    size_bytes: int = 0

    @property
    def missing(self) -> list[str]:
        """Ids of the objects that are still to come."""
        return [id for id in self.tree.children if id not in self.contents]


def hand_on(reply: Message, objects: ObjectTree, contents: dict[str, bytes], state: Any) -> None:
    """Puts a complete reply into Flower's stores, its head last; nothing if Flower refuses it.

    Args:
        reply: Its head.
        objects: Its object tree.
        contents: All its objects by id.
        state: Flower's link state.
    """
    run, root = reply.metadata.run_id, reply.metadata.message_id
    session = state.start_session(run)
    stored = all(
        state.store_object(run, session, id, contents[id])
        for id in state.preregister_object_tree(objects, session)
    )
    if not stored or state.store_message_res(reply) is None:
        state.object_store.delete(root)


def answer_for(asked: Message, state: Any) -> None:
    """Answers a message with an error in its site's place.

    Args:
        asked: The message to the site.
        state: Flower's link state.
    """
    about, now = asked.metadata, time.time()
    metadata = Metadata(
        run_id=about.run_id,
        message_id="",
        src_node_id=about.dst_node_id,
        dst_node_id=SUPERLINK_NODE_ID,
        reply_to_message_id=about.message_id,
        group_id=about.group_id,
        created_at=now,
        ttl=about.created_at + about.ttl - now,
        message_type=about.message_type,
    )
    error = Error(ErrorCode.MESSAGE_UNAVAILABLE, "The reply is incomplete or too large.")
    reply = make_message(metadata, error=error)
    id = reply.object_id
    reply.metadata.__dict__["_message_id"] = id
    hand_on(reply, get_object_tree(reply), {id: reply.deflate()}, state)
