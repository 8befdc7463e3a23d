"""The ``flower-superexec`` of a site's daemon: a forked process for each task.

A task of its own has much less to do than the imports of a new process. They are made once, in a
fork server that ends when no task has come for a while.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from flwr.supercore.constant import TaskType
from flwr.supercore.superexec.executor import ExecutionSpec, LaunchResult

from clients.daemon.forked_process import ForkServer
from f2l_fed.flower.superexec import (
    OneTaskExecutor,
    TaskLimits,
    TaskProcess,
    command_of,
    main,
    token_file,
)

COMMAND = (sys.executable, "-m", "clients.daemon.clientapp_main")
IDLE_S = 600.0
"""Time without a task after which the fork server's memory is given back."""


class ForkingExecutor(OneTaskExecutor):
    """An executor that has the processes of a site's tasks forked.

    Where that is not possible, each is a new process.

    Args:
        limits: The limits on each process.
        command: Command line of the fork server.
        idle_s: Time without a task after which it is ended.
    """

    def __init__(
        self,
        limits: TaskLimits | None = None,
        *,
        command: Sequence[str] = COMMAND,
        idle_s: float = IDLE_S,
    ) -> None:
        super().__init__(limits)
        self._server, self._idle_s = ForkServer(command), idle_s
        self._busy_at = time.monotonic()

    @property
    def forking(self) -> bool:
        """Whether the fork server runs."""
        return self._server.running

    def start_process(self, spec: ExecutionSpec, starting: int) -> TaskProcess:
        """Has the process of a task forked; arguments and errors as of the executor's."""
        if spec.task_type != TaskType.CLIENT_APP or not ForkServer.possible():
            return super().start_process(spec, starting)
        with token_file(spec.token) as token:
            return self._server.start(command_of(spec), [token, starting])

    def launch(self, spec: ExecutionSpec) -> LaunchResult:
        """Runs the process of a task, as the executor does."""
        try:
            return super().launch(spec)
        finally:
            self._busy_at = time.monotonic()

    def reconcile(self) -> None:
        """Ends an idle fork server; Flower calls this before it asks for a task."""
        if self.forking and time.monotonic() - self._busy_at > self._idle_s:
            self._server.end()

    def close(self) -> None:
        """Ends the fork server."""
        self._server.end()


if __name__ == "__main__":
    main(ForkingExecutor)
