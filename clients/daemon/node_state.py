"""The state of a site's SuperNode, in which a task without an answer is answered with an error.

Flower waits for the answer of a task before it asks for the next one. It waits for ever if the task
has failed before its process took the message, or while it handed over its answer.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
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

_LOG = logging.getLogger("flwr")


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


def _record(answered: Iterable[str]) -> None:
    """Records errors that are about to leave, each in place of an answer."""
    sent = SentLog.in_folder(Path(os.environ["FLWR_HOME"]).parent)
    for _ in answered:
        content = RecordDict({"error": ConfigRecord({"code": "task-ended"})})
        try:
            sent.record(REFUSAL, 0, content, utc_now())
        except OSError as error:
            # With a full disk the server should still hear that no answer will come.
            _LOG.error("the error could not be recorded: %s", error)
