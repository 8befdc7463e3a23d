"""The intake of replies: each is kept apart until all of it has come, and handed on at once.

Flower's SuperLink hands a reply out as soon as its head has come, and the ServerApp then waits for
its objects: one site that never sends them would hold up all others. It also keeps an object for
everybody under its id with the children that its first sender named. Here a reply reaches
Flower's stores when it is complete and every object is the announced one. One that is not continued
or breaks a limit is given up, with an error in its place: its own site's failure alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from logging import WARNING
from typing import Any

from fastapi import HTTPException
from flwr.common.constant import Status
from flwr.proto.fleet_pb2 import PushMessagesResponse, Reconnect
from flwr.proto.message_pb2 import PushObjectResponse
from flwr.server.superlink.utils import check_abort
from flwr.supercore import log
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.superlink.servicer.fleet import fleet_handlers
from flwr.superlink.servicer.runtime import runtime_handlers

from f2l_fed.errors import WireError
from f2l_fed.wire.reply_bound import ReplyBound
from server.superlink.reply_check import read_tree, require_head, require_object, require_reply
from server.superlink.reply_upload import Upload, answer_for, hand_on

UPLOAD_S = 180.0
"""Longest wait for the next object of a reply; then it is given up."""

MOST_OPEN = 2
"""Most replies that a node may send at a time: an earlier process of it may have left one."""

_NOT_RUNNING = [Status.PENDING, Status.STARTING, Status.FINISHED]


class ReplyIntake:
    """Flower's handlers of a site's reply and of the ServerApp's poll, with replies kept apart.

    Args:
        bound: The limits of one reply.
        poll: Flower's handler of the ServerApp's poll.
        clock: Seconds of a monotonic clock.
    """

    def __init__(
        self, bound: ReplyBound, poll: Any, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bound, self._poll, self._clock = bound, poll, clock
        self._lock = threading.Lock()
        self._open: dict[str, Upload] = {}
        # The latest complete reply of each node, which may repeat a request that was not answered.
        self._finished: dict[int, tuple[str, str]] = {}

    def push_messages(self, request: Any, state: Any) -> PushMessagesResponse:
        """Begins a reply, or refuses the request and keeps nothing of it."""
        node = request.node.node_id
        try:
            if request.messages_list:
                _require_running(request.messages_list[0].metadata.run_id, state)
            if (known := self._repeated(request)) is not None:
                return known
            reply, asked = require_reply(request, state)
        except WireError as error:
            raise self._refused(node, error, state) from error
        objects = request.message_object_trees[0]
        try:
            tree = read_tree(objects, self._bound)
        except WireError as error:
            answer_for(asked, state)
            raise self._refused(node, error, state) from error
        upload = Upload(
            node=node,
            head=request.messages_list[0],
            reply=reply,
            asked=asked,
            objects=objects,
            tree=tree,
            touched=self._clock(),
        )
        self._begin(upload, state)
        return _begun(reply.metadata.message_id, upload.missing, upload.session)

    def push_object(self, request: Any, state: Any) -> PushObjectResponse:
        """Keeps an object of a reply; hands the reply on with its last one."""
        node, id, content = request.node.node_id, request.object_id, request.object_content
        try:
            _require_running(request.run_id, state)
            with self._lock:
                upload = self._open.get(request.session_id)
                if upload is None or upload.node != node or id not in upload.tree.children:
                    again = self._finished.get(node, ("", ""))[1] == request.session_id != ""
                    return PushObjectResponse(stored=again)
                upload.touched = self._clock()
                if id in upload.contents:
                    return PushObjectResponse(stored=True)
                upload.size_bytes += upload.tree.uses[id] * len(content)
                fits = upload.size_bytes <= self._bound.bytes
        except WireError as error:
            raise self._refused(node, error, state) from error
        try:
            if not fits:
                raise WireError(
                    "the reply is too large", expected=f"at most {self._bound.bytes} bytes"
                )
            require_object(id, content, upload.tree)
            if id == upload.objects.object_id:
                require_head(content, upload.head)
        except WireError as error:
            self._give_up(upload, state)
            raise self._refused(node, error, state) from error
        with self._lock:
            if id in upload.contents:
                upload.size_bytes -= upload.tree.uses[id] * len(content)
            upload.contents[id] = content
            complete = len(upload.contents) == len(upload.tree.children)
            if complete and (complete := self._open.pop(upload.session, None) is not None):
                self._finished[node] = upload.objects.object_id, upload.session
        if complete:
            hand_on(upload.reply, upload.objects, upload.contents, state)
        return PushObjectResponse(stored=True)

    def pull_messages(self, request: Any, state: Any, task: Any) -> Any:
        """Gives up what is not continued, then does what Flower does: no reply is incomplete."""
        now = self._clock()
        with self._lock:
            idle = [one for one in self._open.values() if now - one.touched > UPLOAD_S]
        for upload in idle:
            if self._give_up(upload, state):
                _tell(upload.node, f"the rest of a reply did not come for {UPLOAD_S:g} s", state)
        return self._poll(request, state, task)

    def _repeated(self, request: Any) -> PushMessagesResponse | None:
        """The answer to a request that has been answered before, perhaps in vain."""
        if len(request.messages_list) != 1:
            return None
        node, id = request.node.node_id, request.messages_list[0].metadata.message_id
        with self._lock:
            for upload in self._open.values():
                if (upload.node, upload.objects.object_id) == (node, id):
                    return _begun(id, upload.missing, upload.session)
            root, session = self._finished.get(node, ("", ""))
            return _begun(id, [], session) if root == id != "" else None

    def _begin(self, upload: Upload, state: Any) -> None:
        """Takes a reply up, in place of an earlier one to the same message, or the oldest."""
        with self._lock:
            own = [one for one in self._open.values() if one.node == upload.node]
            same = [one for one in own if one.asked is upload.asked]
            for one in same:
                del self._open[one.session]
            self._open[upload.session] = upload
            too_many = [] if same else own[: len(own) + 1 - MOST_OPEN]
        for one in too_many:
            if self._give_up(one, state):
                _tell(upload.node, f"more than {MOST_OPEN} replies at a time", state)

    def _give_up(self, upload: Upload, state: Any) -> bool:
        """Forgets a reply and puts an error in its place; False if that has been done."""
        with self._lock:
            found = self._open.pop(upload.session, None) is not None
        if found:
            answer_for(upload.asked, state)
        return found

    def _refused(self, node: int, error: WireError, state: Any) -> HTTPException:
        """The refusal, with one line in the log. Flower's client gives up on it and goes on."""
        _tell(node, f"refused: {error}", state)
        return HTTPException(status_code=409, detail=str(error))


def _begun(id: str, missing: list[str], session: str) -> PushMessagesResponse:
    return PushMessagesResponse(
        reconnect=Reconnect(reconnect=5),
        results={id: 0},
        objects_to_push=missing,
        session_id=session,
    )


def _require_running(run: int, state: Any) -> None:
    """Checks that a run goes on; raises FlowerError if it does not, WireError if there is none."""
    if run not in state.get_run_status({run}):
        raise WireError("an unknown run")
    if over := check_abort(run, _NOT_RUNNING, state):
        raise FlowerError(ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED, over)


def _tell(node: int, what: str, state: Any) -> None:
    name = next((one.name for one in state.get_node_info(node_ids=[node])), "")
    log(WARNING, "site %s: %s", ascii(name or node)[:80], what[:400])


def take_replies(bound: ReplyBound) -> None:
    """Replaces Flower's handlers by `ReplyIntake`, in this process.

    Args:
        bound: The limits of one reply.

    Raises:
        AttributeError: If this version of Flower has others.
    """
    intake = ReplyIntake(bound, runtime_handlers.pull_messages)
    for module, name in (
        (fleet_handlers, "push_messages"),
        (fleet_handlers, "push_object"),
        (runtime_handlers, "pull_messages"),
    ):
        getattr(module, name)
        setattr(module, name, getattr(intake, name))
