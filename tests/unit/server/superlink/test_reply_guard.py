"""Replies that sites have tampered with, on Flower's own way to the ServerApp."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, Metadata, RecordDict
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import PullObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import (
    add_header_to_object_body,
    get_all_nested_objects,
    get_object_tree,
)
from flwr.supercore.run import Run
from flwr.superlink.grid import http_grid

from f2l_fed.wire.reply_bound import largest_built_in
from server.superlink.reply_guard import guard_replies

Objects = dict[str, bytes]


def reply_to(request: str, value: float) -> Message:
    metadata = Metadata(
        run_id=1,
        message_id="",
        src_node_id=7,
        dst_node_id=1,
        reply_to_message_id=request,
        group_id="",
        created_at=1e9,
        ttl=60.0,
        message_type="train",
    )
    weights = ArrayRecord({"w": Array(np.full(3, value, np.float32))})
    message = make_message(metadata, RecordDict({"weights": weights}))
    message.metadata.__dict__["_message_id"] = message.object_id
    return message


class Link:
    """A SuperLink that holds these messages and their objects."""

    def __init__(self, messages: list[Message], objects: Objects) -> None:
        self._messages, self._objects = messages, objects
        self.confirmed: list[str] = []

    def PullMessages(self, _: Any) -> PullAppMessagesResponse:  # noqa: N802
        heads = [message_to_proto(remove_content_from_message(one)) for one in self._messages]
        trees = [get_object_tree(one) for one in self._messages]
        return PullAppMessagesResponse(messages_list=heads, message_object_trees=trees)

    def PullObject(self, request: Any) -> PullObjectResponse:  # noqa: N802
        content = self._objects[request.object_id]
        return PullObjectResponse(object_found=True, object_available=True, object_content=content)

    def ConfirmMessageReceived(self, request: Any) -> SimpleNamespace:  # noqa: N802
        self.confirmed.append(request.message_object_id)
        return SimpleNamespace()


def body(kind: str) -> Callable[[Message, Objects], None]:
    """Puts nonsense where a part of the message was, under its head."""

    def spoil(message: Message, objects: Objects) -> None:
        for id, part in get_all_nested_objects(message).items():
            if type(part).__name__ == kind:
                objects[id] = add_header_to_object_body(b"\xff{no such thing", part)

    return spoil


def exchanged(message: Message, objects: Objects) -> None:
    """An array record where the whole content is expected."""
    for id, part in get_all_nested_objects(message).items():
        if isinstance(part, RecordDict):
            objects[id] = ArrayRecord().deflate()


def missing(message: Message, objects: Objects) -> None:
    objects[message.object_id] = b""


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "inflate_object_from_contents"
    monkeypatch.setattr(http_grid, name, getattr(http_grid, name))
    monkeypatch.setattr(http_grid, "pull_objects", http_grid.pull_objects)
    guard_replies(largest_built_in())
    guard_replies(largest_built_in())


def pulled(spoil: Callable[[Message, Objects], None]) -> list[Message]:
    messages = [reply_to(f"request-{number}", number) for number in range(3)]
    objects = {
        id: part.deflate() for one in messages for id, part in get_all_nested_objects(one).items()
    }
    spoil(messages[1], objects)
    grid = http_grid.HttpGrid(token="t")
    grid._client, grid._run = Link(messages, objects), Run.create_empty(1)  # type: ignore[assignment]
    return list(grid.pull_messages([one.metadata.reply_to_message_id for one in messages]))


@pytest.mark.parametrize(
    ("spoil", "known"),
    [
        (body("Array"), True),
        (body("RecordDict"), True),
        (body("ArrayRecord"), True),
        (body("Message"), False),
        (exchanged, True),
        (missing, False),
    ],
)
def test_a_spoilt_reply_fails_its_own_site_only(guarded, spoil, known):
    first, bad, last = pulled(spoil)
    assert bad.has_error()
    assert bad.metadata.reply_to_message_id == ("request-1" if known else "")
    for number, reply in ((0, first), (2, last)):
        assert reply.metadata.reply_to_message_id == f"request-{number}"
        assert reply.content["weights"]["w"].numpy().tolist() == [number] * 3


def test_without_the_guard_one_malformed_reply_loses_all():
    with pytest.raises(Exception, match=r"codec can.t decode"):
        pulled(body("Array"))
