"""A process of this machine that runs jobs one after another.

It is forked from the fork server, so it begins within milliseconds and shares the memory of all
that is imported there. It ends when nobody is left who could ask it for anything.
"""

from __future__ import annotations

import os
import pickle
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from server.cluster.fork_server import FORK_SERVER

Kind = Literal["yielded", "returned", "raised"]


class LostProcess(Exception):
    """A process that has ended before its job was done."""


class WorkerProcess:
    """A process that runs jobs one after another, with the environment and folder of this one.

    Args:
        environment: Further variables.

    Raises:
        Interrupted: If the fork server can't start; also by `answers`.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._ending = threading.Lock()
        self._socket, its = socket.socketpair()
        self._channel = Connection(os.dup(self._socket.fileno()))
        life, self._life = Pipe(duplex=False)
        with its, life:
            try:
                FORK_SERVER.fork(its.fileno(), life.fileno())
            except BaseException:
                self.close()
                raise
        # The fork server may have begun with others.
        self._send({**os.environ, **(environment or {})}, Path.cwd())

    def begin(self, job: Callable[..., Any], *arguments: Any) -> None:
        """Begins a job; that it is lost shows in its answers.

        Args:
            job: A function of a module.
            arguments: Its arguments.
        """
        self._send(job, arguments)

    def answers(self) -> Iterator[tuple[Kind, Any]]:
        """All that the job yields, and at the end what it has returned or raised.

        An error that is neither typed nor an OSError comes as a RoundError.

        Raises:
            LostProcess: If the process ends before.
            Interrupted: If it never began, since the fork server can't start.
        """
        kind: Kind = "yielded"
        while kind == "yielded":
            try:
                answer = self._channel.recv_bytes()
            except (EOFError, OSError) as error:
                FORK_SERVER.check()
                raise LostProcess from error
            kind, value = pickle.loads(answer)
            yield kind, value

    def end(self) -> None:
        """Ends it, whatever it does; who waits for its answers sees it lost."""
        # Its own thread may end it at the same time, and a handle must not be closed twice.
        with self._ending:
            self._life.close()
        # The fork server may still import, so that there is no process that could end.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Ends it for one who waits for none of its answers."""
        self.end()
        self._channel.close()
        self._socket.close()

    def _send(self, *message: Any) -> None:
        request = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        # It may have ended.
        with suppress(OSError):
            self._channel.send_bytes(request)
