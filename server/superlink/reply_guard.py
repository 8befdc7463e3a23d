"""A guard on the assembly of replies: a malformed reply fails its own site and no other.

Flower's SuperLink trusts the type that an object's first bytes name; its content is decoded
when the ServerApp assembles the reply. An error there would end the app, and lose all replies that
were fetched together, which Flower hands out only once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from flwr.app import Error, Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.supercore.inflatable.inflatable_object import get_object_body
from flwr.superlink.grid import http_grid
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

COMPLETE_S = 10.0
"""Longest wait for an object of a reply; the SuperLink hands replies out with all of theirs."""

_NAME, _PULL = "inflate_object_from_contents", "pull_objects"


class ReplyGuard:
    """Flower's assembly of a message from its objects, which makes an error of a malformed one.

    Args:
        inflate: Flower's function.
    """

    def __init__(self, inflate: Callable[[str, dict[str, bytes]], Any]) -> None:
        self._inflate = inflate

    def __call__(self, id: str, contents: dict[str, bytes]) -> Message:
        """The reply, or an error in its place.

        Args:
            id: Id of the message among its objects.
            contents: All objects as the site sent them; consumed.
        """
        root = contents.get(id, b"")
        try:
            reply = self._inflate(id, contents)
        except Exception:
            # A site's bytes can make Flower raise any exception.
            return _failed(root)
        if not isinstance(reply, Message):
            return _failed(root)
        valid = reply.has_error() or isinstance(reply.content, RecordDict)
        return reply if valid else _failed(root)


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


def guard_replies() -> None:
    """Replaces Flower's function by `ReplyGuard`, in this process.

    Also limits the wait for the objects of a reply, which Flower bounds by two hours and in which
    all other replies would wait.

    Raises:
        AttributeError: If this version of Flower has another.
    """
    inflate = getattr(http_grid, _NAME)
    if not isinstance(inflate, ReplyGuard):
        setattr(http_grid, _NAME, ReplyGuard(inflate))
        pull = getattr(http_grid, _PULL)
        setattr(http_grid, _PULL, partial(pull, max_time=COMPLETE_S))
