"""Tasks that a cut network swallowed are delivered again.

Flower hands a message out once: where the answer to a site's poll is lost, so is the task, and a
round waits for it in vain. That happens at every cut, since what a site has asked into the dead
network reaches the server once it is mended, from a connection that the site has given up. A site
confirms each message before it asks for the next one; here it gets the same again until then.
"""

from __future__ import annotations

import time
from typing import Any

from flwr.common.constant import Status
from flwr.server.superlink.utils import check_abort
from flwr.superlink.servicer.fleet import fleet_handlers

KEPT_S = 120.0
"""After longer, the site has been silent for so long that the task is given up."""

_NOT_RUNNING = [Status.PENDING, Status.STARTING, Status.FINISHED]


class RedeliveringLinkState:
    """Flower's two handlers of a message's way to a site, and what was handed out between them.

    Args:
        pull: Flower's handler of a site's poll.
        confirm: Flower's handler of a site's confirmation.
    """

    def __init__(self, pull: Any, confirm: Any) -> None:
        self._pull, self._confirm = pull, confirm
        self._out: dict[int, tuple[float, Any]] = {}

    def pull_messages(self, request: Any, state: Any, store: Any) -> Any:
        """The message that the site has not confirmed, or the next one."""
        node = request.node.node_id
        since, before = self._out.get(node, (0.0, None))
        if before is not None and time.monotonic() - since < KEPT_S and _wanted(before, state):
            return before
        answer = self._pull(request=request, state=state, store=store)
        if answer.messages_list:
            self._out[node] = (time.monotonic(), answer)
        else:
            self._out.pop(node, None)
        return answer

    def confirm_message_received(self, request: Any, state: Any, store: Any) -> Any:
        """The site has the message."""
        self._out.pop(request.node.node_id, None)
        return self._confirm(request=request, state=state, store=store)


def _wanted(answer: Any, state: Any) -> bool:
    """Whether the run that a message is of still goes on."""
    run = answer.messages_list[0].metadata.run_id
    return not check_abort(run, _NOT_RUNNING, state)


def deliver_again() -> None:
    """Puts `RedeliveringLinkState` in the place of Flower's handlers, in this process.

    Raises:
        AttributeError: If this version of Flower has others.
    """
    names = ("pull_messages", "confirm_message_received")
    delivery = RedeliveringLinkState(*(getattr(fleet_handlers, name) for name in names))
    for name in names:
        setattr(fleet_handlers, name, getattr(delivery, name))
