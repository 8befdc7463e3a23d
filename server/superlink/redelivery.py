"""Redelivery of messages to sites after an interrupted connection.

Flower hands a message out once: if the answer to a site's poll is lost, so is the task, and a round
waits for it in vain. That happens at every interruption, since a poll that was sent into the dead
network reaches the server once it works again, on a connection that the site has given up. A site
confirms each message before it asks for the next one; here it gets the same message until then.
"""

from __future__ import annotations

import time
from typing import Any

from flwr.common.constant import Status
from flwr.server.superlink.utils import check_abort
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.object_store import NoObjectInStoreError
from flwr.superlink.servicer.fleet import fleet_handlers

KEPT_S = 120.0
"""Longest time that a message is kept for redelivery; then the task is given up."""

_NOT_RUNNING = [Status.PENDING, Status.STARTING, Status.FINISHED]


class Redelivery:
    """Flower's handlers of a site's poll and confirmation, which repeat an unconfirmed message.

    Args:
        pull: Flower's handler of a site's poll.
        confirm: Flower's handler of a site's confirmation.
    """

    def __init__(self, pull: Any, confirm: Any) -> None:
        self._pull, self._confirm = pull, confirm
        self._unconfirmed: dict[int, tuple[float, Any]] = {}

    def pull_messages(self, request: Any, state: Any, store: Any) -> Any:
        """The message that the site has not confirmed, or the next one."""
        node = request.node.node_id
        since, before = self._unconfirmed.get(node, (0.0, None))
        if before is not None and time.monotonic() - since < KEPT_S and _run_goes_on(before, state):
            return before
        answer = self._pull(request=request, state=state, store=store)
        if answer.messages_list:
            self._unconfirmed[node] = (time.monotonic(), answer)
        else:
            self._unconfirmed.pop(node, None)
        return answer

    def confirm_message_received(self, request: Any, state: Any, store: Any) -> Any:
        """Forgets the message, which the site has received.

        Flower deletes whatever object is named; here a site can only confirm messages to it, and
        only whole ones: deleted while the server still sends it, a message would end the round.
        """
        node, id = request.node.node_id, request.message_object_id
        _, given = self._unconfirmed.get(node, (0.0, None))
        message = state.message_ins_store.get(id)
        own = (given is not None and given.messages_list[0].metadata.message_id == id) or (
            message is not None and message.metadata.dst_node_id == node
        )
        if own and _is_whole(id, store):
            self._unconfirmed.pop(node, None)
        else:
            request.message_object_id = ""
        return self._confirm(request=request, state=state, store=store)


def _run_goes_on(answer: Any, state: Any) -> bool:
    """Whether the run of a message still goes on."""
    run = answer.messages_list[0].metadata.run_id
    return not check_abort(run, _NOT_RUNNING, state)


def _is_whole(message_id: str, store: Any) -> bool:
    """Whether the server has sent every part of a message that is kept."""
    try:
        ids = iterate_object_tree(store.get_object_tree(message_id))
    except NoObjectInStoreError:  # Its run has ended, or it was confirmed before.
        return True
    return all(store.get(part.object_id) for part in ids)


def install_redelivery() -> None:
    """Replaces Flower's handlers by `Redelivery`, in this process.

    Raises:
        AttributeError: If this version of Flower has others.
    """
    names = ("pull_messages", "confirm_message_received")
    redelivery = Redelivery(*(getattr(fleet_handlers, name) for name in names))
    for name in names:
        setattr(fleet_handlers, name, getattr(redelivery, name))
