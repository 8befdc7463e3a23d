"""Limits on the object tree of a reply: one that would expand far beyond its size is refused.

Flower's SuperLink stores each object of a reply's tree once, with the ids of its children, and
rebuilds the tree when it is asked for. A few kilobytes in which every object is twice the child of
the next would become more nodes than any memory holds.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.superlink.servicer.fleet import fleet_handlers

MOST_NODES = 65_536
DEEPEST = 32
"""A valid reply has some tens of objects, at most 4 deep."""


class ReplyLimits:
    """Flower's handler of a site's reply, which refuses a tree above the limits.

    Args:
        push: Flower's handler.
    """

    def __init__(self, push: Any) -> None:
        self._push = push
        self._lock = threading.Lock()

    def __call__(self, request: Any, state: Any) -> Any:
        """Stores a reply; raises ValueError, and stores nothing, above the limits."""
        # Serialised: the store may not change between the check and the push.
        with self._lock:
            for tree in request.message_object_trees:
                nodes, depth = expanded_size(tree, state.object_store.store)
                if nodes > MOST_NODES or depth > DEEPEST:
                    raise ValueError(f"a reply of {nodes} objects, {depth} deep")
            return self._push(request=request, state=state)


def expanded_size(tree: Any, known: Mapping[str, Any]) -> tuple[int, int]:
    """The size of a tree that is rebuilt from the store.

    Args:
        tree: ``ObjectTree`` as a site sends it.
        known: The store's entries by id; an object that is stored keeps its children.

    Returns:
        Number of nodes and levels.
    """
    sizes: dict[str, tuple[int, int]] = {}

    def size(id: str, children: list[str]) -> tuple[int, int]:
        # Children are measured first: this tree and the stored ones are walked from their leaves.
        if id not in sizes:
            stored = known.get(id)
            below = [
                sizes.get(child) or size(child, [])
                for child in (children if stored is None else stored.child_object_ids)
            ]
            nodes, levels = zip(*below, strict=True) if below else ((), ())
            sizes[id] = 1 + sum(nodes), 1 + max(levels, default=0)
        return sizes[id]

    for node in iterate_object_tree(tree):
        size(node.object_id, [child.object_id for child in node.children])
    return sizes[tree.object_id]


def limit_replies() -> None:
    """Replaces Flower's handler by `ReplyLimits`, in this process.

    Raises:
        AttributeError: If this version of Flower has another.
    """
    fleet_handlers.push_messages = ReplyLimits(fleet_handlers.push_messages)
