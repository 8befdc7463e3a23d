"""The grid of simulated sites on this machine: each message goes to one of a few processes.

It stands where Flower's simulation runtime has a link state, its polls and Ray's actors. Every node
has its own context, as there; an exception of the sites' app, and a process that was killed, come
back as Flower's error messages.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from queue import SimpleQueue

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from f2l_fed.core.durable_files import write_without_waiting
from server.cluster.worker_process import LostProcess, WorkerProcess
from server.rounds.state import Interrupted

_RUN = 1
_LOOK_S = 0.002


class LocalGrid(Grid):
    """The grid of simulated sites; closed, it ends their processes.

    Args:
        app: Makes the app of the sites; a function of a module, called in their processes.
        sites: Number of nodes. Node n, from 1 on, is partition n - 1.
        processes: How many of them work at a time.
        environment: Variables of the processes.
    """

    def __init__(
        self,
        app: Callable[[], ClientApp],
        *,
        sites: int,
        processes: int,
        environment: Mapping[str, str],
    ) -> None:
        self._app, self._environment = app, environment
        self._contexts = {
            number + 1: Context(
                _RUN,
                number + 1,
                {"partition-id": number, "num-partitions": sites},
                RecordDict(),
                {},
            )
            for number in range(sites)
        }
        self._asked: SimpleQueue[Message | None] = SimpleQueue()
        self._answered: dict[str, Message] = {}
        self._serial, self._closed = count(1), False
        self._fault: Interrupted | None = None
        self._run = Run.create_empty(run_id=_RUN)
        # A message reads its sender from here.
        TaskIdentity.run_id, TaskIdentity.task_id = _RUN, 1
        TaskIdentity.node_id = SUPERLINK_NODE_ID
        self._processes: list[WorkerProcess | None] = [None] * min(processes, sites)
        self._threads = [
            threading.Thread(target=self._work, args=(number,), daemon=True)
            for number in range(len(self._processes))
        ]
        for thread in self._threads:
            thread.start()

    def set_run(self, run: Run) -> None:
        """Sets the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Makes a message."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """The nodes."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Sends messages; returns their ids."""
        pushed = []
        for message in messages:
            identifier = f"{next(self._serial)}"
            message.metadata.__dict__["_message_id"] = identifier
            self._asked.put(message)
            pushed.append(identifier)
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to these messages that are there; each is given once.

        Raises:
            Interrupted: If processes can't start.
        """
        if self._fault is not None:
            raise self._fault
        return [self._answered.pop(one) for one in list(message_ids) if one in self._answered]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Sends messages and waits for all replies, or for so many seconds."""
        waiting, replies = set(self.push_messages(messages)), list[Message]()
        until = float("inf") if timeout is None else time.monotonic() + timeout
        while waiting and time.monotonic() < until and not self._closed:
            came = list(self.pull_messages(waiting))
            waiting -= {reply.metadata.reply_to_message_id for reply in came}
            replies += came
            if not came:
                time.sleep(_LOOK_S)
        return replies

    def close(self) -> None:
        """Ends the processes; what they work on gets no reply."""
        self._closed = True
        for process in filter(None, self._processes):
            process.end()
        for _ in self._threads:
            self._asked.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self, number: int) -> None:
        """Has one process answer messages, and replaces it when it was lost."""
        process = None
        while (message := self._asked.get()) is not None and not self._closed:
            node = message.metadata.dst_node_id
            try:
                if process is None:
                    process = self._processes[number] = WorkerProcess(self._environment)
                if self._closed:
                    break
                process.begin(_reply, self._app, message, self._contexts[node])
                ((_, answer),) = process.answers()
                if isinstance(answer, Exception):
                    raise answer
                reply, self._contexts[node] = answer
            except (LostProcess, Interrupted) as error:
                if isinstance(error, Interrupted):
                    self._fault = error
                reply = _error(message, ErrorCode.UNKNOWN, "the process was lost")
                if process is not None:
                    process.close()
                process = None
            except Exception as error:
                reply = _error(message, ErrorCode.CLIENT_APP_RAISED_EXCEPTION, str(error))
            self._answered[message.metadata.message_id] = reply
        if process is not None:
            process.close()


def _reply(
    app: Callable[[], ClientApp], message: Message, context: Context
) -> tuple[Message, Context]:
    """The reply of a site and its context after it; runs in a process of the sites."""
    TaskIdentity.run_id, TaskIdentity.task_id = _RUN, 1
    TaskIdentity.node_id = message.metadata.dst_node_id
    write_without_waiting()
    return app()(message, context), context


def _error(message: Message, code: int, reason: str) -> Message:
    return Message(Error(code=code, reason=reason), reply_to=message)
