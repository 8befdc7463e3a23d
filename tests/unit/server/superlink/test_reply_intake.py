"""Replies in Flower's own stores: one per message, by the site that was asked, whole or not."""

from __future__ import annotations

import dataclasses
import math
from hashlib import sha256

import pytest
from fastapi import HTTPException
from flwr.app import ArrayRecord, Message
from flwr.common.constant import ErrorCode
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.error import FlowerError
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
)

from f2l_fed.wire.reply_bound import ReplyBound
from server.superlink.reply_intake import MOST_OPEN, UPLOAD_S
from tests.support.superlink_state import SuperLinkState, content, reply_to

BOUND = ReplyBound(objects=40, bytes=20_000)


@pytest.fixture
def link() -> SuperLinkState:
    return SuperLinkState(BOUND)


def named(what: object) -> str:
    return sha256(str(what).encode()).hexdigest()


def parts(reply: Message) -> dict[str, bytes]:
    return {id: part.deflate() for id, part in get_all_nested_objects(reply).items()}


def test_a_reply_is_handed_out_once_all_of_it_has_come_and_not_before(link):
    node, other = link.nodes
    asked, also = link.ask(node), link.ask(other, 0.7)
    slow = reply_to(asked, content(1.0))
    begun = link.begin(node, slow)
    *first, last = begun.objects_to_push
    for id in first:
        assert link.push(node, begun.session_id, id, parts(slow)[id])
    quick = reply_to(also, content(1.0))
    link.send(other, quick)
    assert list(link.heard(asked, also)) == [also.metadata.message_id]
    assert link.push(node, begun.session_id, last, parts(slow)[last])
    (head,) = link.heard(asked).values()
    assert head.metadata.message_id == slow.metadata.message_id
    for id, data in parts(slow).items():
        assert link.state.object_store.get(id) == data


def test_requests_that_come_twice_are_answered_twice(link):
    node = link.nodes[0]
    asked = link.ask(node)
    reply = reply_to(asked, content(1.0))
    begun = link.begin(node, reply)
    first, *rest = begun.objects_to_push
    for _ in range(2):
        assert link.push(node, begun.session_id, first, parts(reply)[first])
    again = link.begin(node, reply)
    assert (again.session_id, list(again.objects_to_push)) == (begun.session_id, rest)
    for id in rest:
        assert link.push(node, begun.session_id, id, parts(reply)[id])
    assert link.push(node, begun.session_id, rest[-1], parts(reply)[rest[-1]])
    assert list(link.begin(node, reply).objects_to_push) == []
    assert len(link.heard(asked)) == 1


HEADS = {
    "in another node's name": lambda link: {"src_node_id": link.nodes[1]},
    "to another node": lambda link: {"dst_node_id": link.nodes[1]},
    "no reply": lambda _: {"reply_to_message_id": ""},
    "to a message that is none": lambda _: {"reply_to_message_id": named(1)},
    "in another run": lambda link: {"run_id": link.run + 1},
    "of another type": lambda _: {"message_type": "query.probe"},
    "of another group": lambda _: {"group_id": "g"},
    "from long ago": lambda _: {"created_at": 1.8e9 - 1e9},
    "from no time": lambda _: {"created_at": math.nan},
    "for longer": lambda _: {"ttl": 1e6},
    "for ever": lambda _: {"ttl": math.inf},
    "for no time": lambda _: {"ttl": -1.0},
}


@pytest.mark.parametrize("what", HEADS)
def test_a_push_that_is_no_reply_to_an_own_open_message_leaves_nothing(link, what):
    node = link.nodes[0]
    asked = link.ask(node)
    odd = reply_to(asked, content(1.0), **HEADS[what](link))
    with link.unchanged(), pytest.raises(HTTPException) as refused:
        link.begin(node, odd)
    assert refused.value.status_code == 409
    link.send(node, reply_to(asked, content(1.0)))
    assert len(link.heard(asked)) == 1


def test_two_replies_in_one_push_or_the_objects_of_another_message_leave_nothing(link):
    node = link.nodes[0]
    asked = link.ask(node)
    reply = reply_to(asked, content(1.0))
    tree = get_object_tree(reply)
    for trees in ([tree, tree], [], [get_object_tree(reply_to(asked, content(2.0)))]):
        with link.unchanged(), pytest.raises(HTTPException):
            link.begin(node, reply, message_object_trees=trees)
    with link.unchanged(), pytest.raises(HTTPException):
        link.begin(node, reply, messages_list=[])


def test_a_message_is_answered_once_and_only_by_its_own_node_after_it_was_sent(link):
    node, other = link.nodes
    asked = link.ask(node)
    with link.unchanged(), pytest.raises(HTTPException):
        link.begin(other, reply_to(asked, content(1.0), src_node_id=other))
    link.send(node, reply_to(asked, content(1.0)))
    for _ in range(2):
        with link.unchanged(), pytest.raises(HTTPException):
            link.begin(node, reply_to(asked, content(2.0)))
        link.heard(asked)


def test_a_reply_whose_first_object_tells_other_than_its_head_is_given_up(link):
    node, other = link.nodes
    asked, also = link.ask(node), link.ask(other, 0.7)
    lie = reply_to(also, content(1.0))
    head = reply_to(asked, content(1.0))
    head.metadata.__dict__["_message_id"] = lie.metadata.message_id
    begun = link.begin(node, head, message_object_trees=[get_object_tree(lie)])
    root, *first = begun.objects_to_push
    assert all(link.push(node, begun.session_id, id, parts(lie)[id]) for id in first)
    with pytest.raises(HTTPException, match="409"):
        link.push(node, begun.session_id, root, parts(lie)[root])
    heard = link.heard(asked, also)
    assert heard[asked.metadata.message_id].error.code == ErrorCode.MESSAGE_UNAVAILABLE
    assert list(heard) == [asked.metadata.message_id]


def test_an_object_of_other_children_or_of_another_node_does_not_come_in(link):
    node, other = link.nodes
    asked = link.ask(node)
    reply = reply_to(asked, content(1.0))
    tree = get_object_tree(reply)
    lost = ObjectTree(object_id=named(1))
    leaf = tree.children[0].children[-1]
    leaf.children.append(lost)
    begun = link.begin(node, reply, message_object_trees=[tree])
    assert not link.push(other, begun.session_id, leaf.object_id, parts(reply)[leaf.object_id])
    assert not link.push(node, "", leaf.object_id, parts(reply)[leaf.object_id])
    with pytest.raises(HTTPException):
        link.push(node, begun.session_id, leaf.object_id, parts(reply)[leaf.object_id])
    assert link.heard(asked)[asked.metadata.message_id].HasField("error")
    # The next reply with the same object is whole.
    again = link.ask(other, 0.7)
    link.send(other, reply_to(again, content(1.0)))
    assert not link.heard(again)[again.metadata.message_id].HasField("error")


def test_a_reply_above_the_bound_is_its_site_s_failure_at_once(link):
    node = link.nodes[0]
    for what in (content(1.0, arrays=20), content(1.0, size=6000)):
        asked = link.ask(node, math.pi + len(what["weights"]))
        reply = reply_to(asked, what)
        with pytest.raises(HTTPException, match="409"):
            link.send(node, reply)
        assert link.heard(asked)[asked.metadata.message_id].HasField("error")
        assert link.intake._open == {}


def test_an_object_that_is_used_often_counts_as_often(link):
    node = link.nodes[0]
    asked = link.ask(node)
    what = content(1.0, size=1000)
    for n in range(8):
        what[f"again-{n}"] = ArrayRecord({f"v{n}": what["weights"]["w0"]})
    with pytest.raises(HTTPException, match="409"):
        link.send(node, reply_to(asked, what))


@pytest.mark.parametrize("depth", [9, 60])
def test_a_tree_that_is_deep_or_expands_without_end_is_refused(link, depth):
    node = link.nodes[0]
    asked = link.ask(node)
    reply = reply_to(asked, content(1.0))
    tree = ObjectTree(object_id=named(0))
    for level in range(1, depth):
        again = [ObjectTree(object_id=named(level - 1))] * (depth > 9)
        tree = ObjectTree(object_id=named(level), children=[tree, *again])
    root = ObjectTree(object_id=reply.metadata.message_id, children=[tree])
    with pytest.raises(HTTPException, match="409"):
        link.begin(node, reply, message_object_trees=[root])
    assert named(0) not in link.state.object_store
    assert link.intake._open == {}


def test_what_is_not_continued_is_given_up_while_others_go_on(link):
    node, other = link.nodes
    asked, also = link.ask(node), link.ask(other, 0.7)
    link.begin(node, reply_to(asked, content(1.0)))
    assert link.heard(asked, also) == {}
    link.now += UPLOAD_S + 1
    link.send(other, reply_to(also, content(1.0)))
    heard = link.heard(asked, also)
    assert heard[asked.metadata.message_id].HasField("error")
    assert not heard[also.metadata.message_id].HasField("error")
    with link.unchanged(), pytest.raises(HTTPException):
        link.begin(node, reply_to(asked, content(2.0)))


def test_replies_that_are_begun_again_and_again_take_no_more_room(link):
    node = link.nodes[0]
    asked = [link.ask(node, 0.1 * n) for n in range(4)]
    for one in asked:
        for value in range(5):
            begun = link.begin(node, reply_to(one, content(value)))
    assert len(link.intake._open) == MOST_OPEN
    heard = link.heard(*asked)
    assert set(heard) == {one.metadata.message_id for one in asked[:2]}
    # The latest of them is continued, as after a site's restart.
    assert begun.session_id in link.intake._open


def test_after_the_end_of_a_run_a_site_hears_that_it_is_over(link):
    node = link.nodes[0]
    asked = link.ask(node)
    reply = reply_to(asked, content(1.0))
    begun = link.begin(node, reply)
    link.state.stop_run(link.run)
    with pytest.raises(FlowerError, match="finished"):
        link.push(node, begun.session_id, begun.objects_to_push[0], b"")
    with pytest.raises(FlowerError, match="finished"):
        link.begin(node, reply)


def test_an_object_that_is_not_the_announced_one_ends_its_reply(link):
    node = link.nodes[0]
    for spoil in (lambda _: b"", lambda _: b"\xff\x00", lambda data: data + b"."):
        asked = link.ask(node, hash(spoil))
        reply = reply_to(asked, content(1.0))
        begun = link.begin(node, reply)
        id = begun.objects_to_push[-1]
        with pytest.raises(HTTPException):
            link.push(node, begun.session_id, id, spoil(parts(reply)[id]))
        assert link.heard(asked)[asked.metadata.message_id].HasField("error")


def test_the_bound_is_the_one_that_was_given():
    reply = content(1.0, arrays=20)
    for objects in (30, 60):
        link = SuperLinkState(dataclasses.replace(BOUND, objects=objects))
        asked = link.ask(link.nodes[0])
        if objects == 60:
            link.begin(link.nodes[0], reply_to(asked, reply))
            continue
        with pytest.raises(HTTPException, match="409"):
            link.begin(link.nodes[0], reply_to(asked, reply))
