"""Object trees that expand without end, in Flower's own store."""

from __future__ import annotations

from hashlib import sha256
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_object_tree, iterate_object_tree
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore

from server.superlink.reply_limits import MOST_NODES, ReplyLimits, expanded_size
from tests.unit.server.superlink.test_reply_guard import reply_to


def named(level: int) -> str:
    return sha256(str(level).encode()).hexdigest()


def doubled(levels: int) -> ObjectTree:
    """Each object twice the child of the next: with its children once, and by its name alone."""
    tree = ObjectTree(object_id=named(0))
    for level in range(levels):
        again = ObjectTree(object_id=named(level))
        tree = ObjectTree(object_id=named(level + 1), children=[tree, again])
    return tree


class Link:
    """Flower's store behind its handler, as far as trees go."""

    def __init__(self) -> None:
        self.object_store = InMemoryObjectStore()
        self._push = ReplyLimits(self._stored)

    def push(self, tree: ObjectTree) -> list[str]:
        found: list[str] = self._push(SimpleNamespace(message_object_trees=[tree]), self)
        return found

    def _stored(self, request: Any, state: Any) -> list[str]:
        return state.object_store.preregister(1, request.message_object_trees[0])

    def nodes(self, id: str) -> int:
        return sum(1 for _ in iterate_object_tree(self.object_store.get_object_tree(id)))


def test_the_counted_size_is_that_of_the_tree_that_flower_rebuilds():
    link, honest = Link(), get_object_tree(reply_to("request", 1.0))
    for tree in (honest, doubled(9)):
        nodes, _ = expanded_size(tree, link.object_store.store)
        link.push(tree)
        assert link.nodes(tree.object_id) == nodes
        assert expanded_size(tree, link.object_store.store)[0] == nodes
    assert nodes == 2**10 - 1


def test_a_small_reply_that_would_expand_without_end_is_refused_and_leaves_nothing():
    link = Link()
    with pytest.raises(ValueError, match="a reply of"):
        link.push(doubled(45))
    assert link.object_store.store == {}


def test_a_tree_can_not_grow_over_the_limits_in_steps():
    link = Link()
    link.push(doubled(14))
    assert link.nodes(named(14)) == 2**15 - 1
    few = [ObjectTree(object_id=named(14))] * (MOST_NODES // 2**15 + 1)
    with pytest.raises(ValueError, match="a reply of"):
        link.push(ObjectTree(object_id=named(99), children=few))
    chain = ObjectTree(object_id=named(14))
    for level in range(200, 220):
        chain = ObjectTree(object_id=named(level), children=[chain])
    with pytest.raises(ValueError, match="35 deep"):
        link.push(chain)
