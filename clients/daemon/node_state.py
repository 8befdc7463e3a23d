"""The state of a site's SuperNode, in which a task without an answer is answered with an error.

Flower waits for the answer of a task before it asks for the next one. It waits for ever if the task
has failed before its process took the message, or while it handed over its answer. If a run ends
while its message arrives, it forgets the message but not the task, whose process waits for ever.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from flwr.app import ConfigRecord, Error, RecordDict
from flwr.common.constant import SubStatus
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supernode.nodestate.in_memory_nodestate import (
    CLIENT_APP_CRASHED_ERROR,
    InMemoryNodeState,
)

from clients.site.sent_log import REFUSAL, SentLog, utc_now
from f2l_fed.wire.refusals import TASK_ENDED

_LOG = logging.getLogger("flwr")

Pull = Callable[..., int | None]
"""Flower's function that takes the next message into the state, and returns None without one."""


class AnsweringNodeState(InMemoryNodeState):
    """Flower's state of a node, which answers for a task that has failed and records it."""

    def finish_task(self, task_id: int, sub_status: str, details: str) -> bool:
        """Ends a task; one that has failed gets an error as its answer unless it has one.

        Args:
            task_id: Number of the task.
            sub_status: Flower's word for its end.
            details: Why.
        """
        finished: bool = super().finish_task(task_id, sub_status, details)
        if finished and sub_status == SubStatus.FAILED:
            runs = {
                task.run_id
                for task in self.get_tasks(task_ids=[task_id])
                if task.type == TaskType.CLIENT_APP
            }
            if runs:
                self._store_error_replies(runs, CLIENT_APP_CRASHED_ERROR)
        return finished

    def give_up_messages(self) -> None:
        """Gives up the messages that Flower has ignored, with their tasks: none is under way."""
        with self.lock_msg_store:
            left = {
                id: entry.message.metadata.run_id
                for id, entry in self.msg_store.items()
                if not entry.message.metadata.reply_to_message_id
            }
        for task in self.get_tasks(run_ids=list(left.values())) if left else ():
            super().finish_task(task.task_id, SubStatus.STOPPED, "the run has ended")
        self.delete_messages(message_ids=list(left))
        for id in left:
            self.object_store.delete(id)

    def _store_error_replies(self, run_ids: set[int], error: Error) -> None:
        with self.lock_msg_store:
            before = set(self.msg_store)
            for entry in self.msg_store.values():
                about = entry.message.metadata
                if about.run_id not in run_ids:
                    continue
                if not about.reply_to_message_id:
                    # Flower answers only for messages that were taken.
                    entry.is_retrieved = True
                elif not self._complete(about.message_id):
                    # Its sender waits for the rest until the objects are gone.
                    self.object_store.delete(about.message_id)
            super()._store_error_replies(run_ids, error)
            answered = self.msg_store.keys() - before
        _record(answered)

    def _complete(self, message_id: str) -> bool:
        tree = self.object_store.get_object_tree(message_id)
        return all(self.object_store.get(part.object_id) for part in iterate_object_tree(tree))


def pull_whole_message(pull: Pull, state: AnsweringNodeState, **more: object) -> int | None:
    """Takes the next message; nothing of one that Flower has ignored is left in the state.

    Args:
        pull: Flower's function.
        state: The state.
        more: Further arguments of the function.
    """
    run = pull(state=state, **more)
    if run is None:
        state.give_up_messages()
    return run


def _record(answered: Iterable[str]) -> None:
    """Records errors that are about to leave, each in place of an answer."""
    sent = SentLog.in_folder(Path(os.environ["FLWR_HOME"]).parent)
    for _ in answered:
        content = RecordDict({"error": ConfigRecord({"code": TASK_ENDED})})
        try:
            sent.record(REFUSAL, 0, content, utc_now())
        except OSError as error:
            # With a full disk the server should still hear that no answer will come.
            _LOG.error("the error could not be recorded: %s", error)
