"""A reply whose objects would unfold into far more than was sent is refused.

Flower's SuperLink keeps of a reply's tree of objects each object once, with the ids of its
children, and makes the tree of that again when it is asked for. A few kilobytes in which every
object is twice the child of the next would become more nodes than any memory holds.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.superlink.servicer.fleet import fleet_handlers

MOST_NODES = 65_536
DEEPEST = 32
"""A reply of ours has some tens of objects, at most 4 deep."""


class ReplyLimits:
    """Flower's handler of a site's reply, for replies that stay as small as they are.

    Args:
        push: Flower's handler.
    """

    def __init__(self, push: Any) -> None:
        self._push = push
        self._one = threading.Lock()

    def __call__(self, request: Any, state: Any) -> Any:
        """Raises ValueError for any other, and nothing of it is kept."""
        # One after the other: what is stored may not change between the look and the push.
        with self._one:
            for tree in request.message_object_trees:
                nodes, depth = unfolded(tree, state.object_store.store)
                if nodes > MOST_NODES or depth > DEEPEST:
                    raise ValueError(f"a reply of {nodes} objects, {depth} deep")
            return self._push(request=request, state=state)


def unfolded(tree: Any, known: Mapping[str, Any]) -> tuple[int, int]:
    """What becomes of a tree once the store has it.

    Args:
        tree: As a site sends it, ``ObjectTree``.
        known: The store's entries by id; what is there already keeps the children it has.

    Returns:
        Number of nodes and levels.
    """
    sizes: dict[str, tuple[int, int]] = {}

    def size(id: str, children: list[str]) -> tuple[int, int]:
        # Children are known first: the tree is walked from its leaves, and so was what is stored.
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


def bound_replies() -> None:
    """Puts `ReplyLimits` in the place of Flower's handler, in this process.

    Raises:
        AttributeError: If this version of Flower has another.
    """
    fleet_handlers.push_messages = ReplyLimits(fleet_handlers.push_messages)
