"""The checks of a push: one reply, by the node that pushes it, to a message it was sent.

Flower's SuperLink stores whatever message a node pushes: an instruction to the ServerApp, a reply
in another node's name inside a head in its own, an object tree that expands without end. Here a
push is read once, and refused before anything of it is kept.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from flwr.app import Message
from flwr.common.constant import MESSAGE_TTL_TOLERANCE, SUPERLINK_NODE_ID
from flwr.common.serde import message_from_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import Metadata as ProtoMetadata
from flwr.server.utils import validate_message
from flwr.supercore.inflatable.inflatable_object import (
    get_object_body,
    get_object_children_ids_from_object_content,
    get_object_id,
)
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from f2l_fed.errors import WireError
from f2l_fed.wire.enrolment import CLOCK_TOLERANCE_S
from f2l_fed.wire.reply_bound import ReplyBound

LARGEST_HEAD_BYTES = 2**18
"""Size limit of a reply's head, which holds the text of an error; the content is in objects."""

DEEPEST = 8
"""Most levels of a reply's object tree; a valid one has five."""

_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ReplyTree:
    """The objects of a reply, as its head names them.

    Args:
        children: Ids of each object's children, by its id.
        uses: How often each object occurs in the tree.
    """

    children: Mapping[str, tuple[str, ...]]
    uses: Mapping[str, int]


def require_reply(request: Any, state: Any) -> tuple[Message, Message]:
    """Checks the head of a push.

    Args:
        request: Flower's ``PushMessagesRequest``; its node is authenticated.
        state: Flower's link state.

    Returns:
        The reply, without content, and the message that it answers.

    Raises:
        WireError: If it is anything but one reply of this node to an open message to it.
    """
    if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
        raise WireError("not one message", got=str(len(request.messages_list)))
    head = request.messages_list[0]
    if head.ByteSize() > LARGEST_HEAD_BYTES:
        raise WireError("the head of the reply is too large", got=f"{head.ByteSize()} bytes")
    about, node = head.metadata, request.node.node_id
    if request.message_object_trees[0].object_id != about.message_id:
        raise WireError("the objects are those of another message")
    if (about.src_node_id, about.dst_node_id) != (node, SUPERLINK_NODE_ID):
        raise WireError("not from this site to the server")
    asked = state.message_ins_store.get(about.reply_to_message_id)
    if (
        asked is None
        or asked.metadata.dst_node_id != node
        or asked.metadata.src_node_id != SUPERLINK_NODE_ID
        or not asked.metadata.delivered_at
        or asked.metadata.message_id in state.message_ins_id_to_message_res_id
    ):
        raise WireError("no reply to an open message to this site")
    _require_like(about, asked.metadata)
    if head.HasField("content") == head.HasField("error") or head.content.ByteSize():
        raise WireError("the head of the reply is neither empty nor an error")
    reply = message_from_proto(head)
    if errors := validate_message(reply, is_reply_message=True):
        raise WireError("the head of the reply is invalid", got=ascii(errors[0])[:120])
    return reply, asked


def _require_like(about: ProtoMetadata, asked: Any) -> None:
    """Checks the rest of a reply's metadata against those of the message that it answers."""
    same = ("run_id", "message_type", "group_id")
    if odd := [name for name in same if getattr(about, name) != getattr(asked, name)]:
        raise WireError("the reply differs from its message", where=odd[0])
    begin, end = asked.created_at, asked.created_at + asked.ttl
    if not (
        isfinite(about.created_at)
        and isfinite(about.ttl)
        and begin - CLOCK_TOLERANCE_S <= about.created_at
        and about.created_at + about.ttl <= end + MESSAGE_TTL_TOLERANCE
    ):
        raise WireError("the times of the reply do not fit its message")


def read_tree(tree: Any, bound: ReplyBound) -> ReplyTree:
    """Reads the object tree of a push.

    Args:
        tree: Flower's ``ObjectTree``.
        bound: Largest number of its nodes.

    Raises:
        WireError: If it is above a limit, or an object has two lists of children.
    """
    children: dict[str, tuple[str, ...]] = {}
    uses: Counter[str] = Counter()
    nodes, waiting = 0, [(tree, 1)]
    while waiting:
        node, depth = waiting.pop()
        nodes += 1
        if nodes > bound.objects or depth > DEEPEST:
            raise WireError(
                "the reply has too many objects",
                expected=f"at most {bound.objects}, at most {DEEPEST} deep",
            )
        below = tuple(child.object_id for child in node.children)
        if not _ID.fullmatch(node.object_id) or children.setdefault(node.object_id, below) != below:
            raise WireError("the reply's objects contradict each other")
        uses[node.object_id] += 1
        waiting.extend((child, depth + 1) for child in node.children)
    return ReplyTree(children=children, uses=uses)


def require_object(id: str, content: bytes, tree: ReplyTree) -> None:
    """Checks an object against its id and its place in the tree.

    Raises:
        WireError: If it is another one.
    """
    try:
        below = tuple(get_object_children_ids_from_object_content(content))
    except ValueError as error:
        raise WireError("not an object") from error
    if below != tree.children[id] or get_object_id(content) != id:
        raise WireError("the object is not the announced one")


def require_head(content: bytes, head: ProtoMessage) -> None:
    """Checks a reply's first object, which is all that the ServerApp reads, against its head.

    Raises:
        WireError: If it tells anything else than the head.
    """
    try:
        inner = ProtoMessage.FromString(get_object_body(content, Message))
    except (ValueError, DecodeError) as error:
        raise WireError("the first object of the reply is not a message") from error
    expected = ProtoMessage()
    expected.CopyFrom(head)
    expected.metadata.message_id = ""
    expected.ClearField("content")
    if inner != expected:
        raise WireError("the reply differs from its head")
