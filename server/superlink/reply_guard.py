"""A guard on the assembly of replies: a malformed or swollen reply fails its own site and no other.

Flower's SuperLink trusts the type that an object's first bytes name; its content is decoded
when the ServerApp assembles the reply. An error there would end the app, and lose all replies that
were fetched together, which Flower hands out only once. An array may name one of its pieces any
number of times, so the size of the whole is added up before anything is assembled.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from flwr.app import Error, Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.supercore.constant import HEAD_BODY_DIVIDER
from flwr.supercore.inflatable.inflatable_object import (
    get_object_body,
    get_object_head_values_from_object_content,
)
from flwr.superlink.grid import http_grid
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from f2l_fed.wire.reply_bound import ReplyBound

COMPLETE_S = 10.0
"""Longest wait for an object of a reply; the SuperLink hands replies out with all of theirs."""

_NAME, _PULL = "inflate_object_from_contents", "pull_objects"


_DEEPEST = 8
"""Most levels of a reply's objects; a valid reply has five."""


class ReplyGuard:
    """Flower's assembly of a message from its objects, which makes an error of a malformed one.

    Args:
        inflate: Flower's function.
        bound: The most bytes of a reply once it is assembled.
    """

    def __init__(self, inflate: Callable[[str, dict[str, bytes]], Any], bound: ReplyBound) -> None:
        self._inflate, self._bound = inflate, bound

    def __call__(self, id: str, contents: dict[str, bytes]) -> Message:
        """The reply, or an error in its place.

        Args:
            id: Id of the message among its objects.
            contents: All objects as the site sent them; consumed.
        """
        root = contents.get(id, b"")
        try:
            if assembled_bytes(id, contents) > self._bound.bytes:
                return _failed(root)
            reply = self._inflate(id, contents)
        except Exception:
            # A site's bytes can make Flower raise any exception.
            return _failed(root)
        if not isinstance(reply, Message):
            return _failed(root)
        valid = reply.has_error() or isinstance(reply.content, RecordDict)
        return reply if valid else _failed(root)


def assembled_bytes(id: str, contents: Mapping[str, bytes]) -> int:
    """The bytes of an object with all that it consists of, each part as often as it is named.

    Args:
        id: The object.
        contents: All objects; each is looked into once.

    Raises:
        KeyError, IndexError, TypeError, ValueError: If they are no objects or some are missing.
    """
    sizes: dict[str, int] = {}

    def size(id: str, depth: int) -> int:
        if depth > _DEEPEST:
            raise ValueError("too many levels")
        if id not in sizes:
            content = contents[id]
            kind, children, _ = get_object_head_values_from_object_content(content)
            parts: Iterable[str] = children
            body = content.partition(HEAD_BODY_DIVIDER)[2]
            if kind in ("RecordDict", "ArrayRecord"):
                parts = json.loads(body).values()
            elif kind == "Array":
                parts = (children[index] for index in json.loads(body)["arraychunk_ids"])
            sizes[id] = len(content) + sum(size(part, depth + 1) for part in parts)
        return sizes[id]

    return size(id, 1)


def _failed(root: bytes) -> Message:
    """An error in reply to the request that a message names, if it names one."""
    try:
        request = ProtoMessage.FromString(get_object_body(root, Message)).metadata
        answered = str(request.reply_to_message_id)
    except (ValueError, DecodeError):
        answered = ""
    metadata = Metadata(
        run_id=0,
        message_id="",
        src_node_id=0,
        dst_node_id=0,
        reply_to_message_id=answered,
        group_id="",
        created_at=0.0,
        ttl=0.0,
        message_type="query",
    )
    reason = "The reply is malformed."
    return make_message(metadata, error=Error(ErrorCode.MESSAGE_UNAVAILABLE, reason))


def guard_replies(bound: ReplyBound) -> None:
    """Replaces Flower's function by `ReplyGuard`, in this process.

    Also limits the wait for the objects of a reply, which Flower bounds by two hours and in which
    all other replies would wait.

    Args:
        bound: The most bytes of a reply.

    Raises:
        AttributeError: If this version of Flower has another.
    """
    inflate = getattr(http_grid, _NAME)
    if not isinstance(inflate, ReplyGuard):
        setattr(http_grid, _NAME, ReplyGuard(inflate, bound))
        pull = getattr(http_grid, _PULL)
        setattr(http_grid, _PULL, partial(pull, max_time=COMPLETE_S))
