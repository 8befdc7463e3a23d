"""The program of the fork server, and of the worker processes that are forked from it.

    python -P -m server.cluster.fork_server_main SOCKET [MODULE…]

It has no thread, and ends with the process that asks it. A worker process runs jobs one after
another, and ends when the other end of its second file is closed.
"""

from __future__ import annotations

import gc
import inspect
import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from typing import NoReturn

import numpy as np
import torch

from f2l_fed.errors import F2LError, RoundError, is_disk_failure

_IMPORTED = ("server.cluster.tasks", "server.cluster.held_out")


def main() -> NoReturn:
    """Forks a process for each request."""
    for name in (*_IMPORTED, *sys.argv[2:]):
        import_module(name)
    control = socket.socket(fileno=int(sys.argv[1]))
    # The system forgets processes that have ended.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # The collector writes to all objects, whose memory would then be copied for each process.
    gc.freeze()
    while True:
        _, files, _, _ = socket.recv_fds(control, 1, 2)
        if not files:
            sys.exit()
        if not os.fork():
            control.close()
            with suppress(BaseException):
                _work(files)
            # Python's own end would go through all objects, whose memory would be copied.
            os._exit(0)
        for file in files:
            os.close(file)


def _work(files: Sequence[int]) -> None:
    """Runs jobs in a forked process until nobody asks any more.

    Its first message has the environment and the folder.
    """
    # What the fork server tells is for its parent.
    os.dup2(1, 2)
    channel, life = Connection(files[0]), Connection(files[1], writable=False)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(life,), daemon=True).start()
    torch.set_num_threads(1)
    # Forked processes would all draw the same.
    torch.seed()
    np.random.seed()
    environment, folder = pickle.loads(channel.recv_bytes())
    os.environ.clear()
    os.environ.update(environment)
    with suppress(OSError):
        os.chdir(folder)
    while True:
        _answer(channel, channel.recv_bytes())


def _end_with(life: Connection) -> None:
    with suppress(EOFError, OSError):
        life.recv_bytes()
    os._exit(1)


def _answer(channel: Connection, request: bytes) -> None:
    def tell(kind: str, value: object) -> None:
        channel.send_bytes(pickle.dumps((kind, value), protocol=pickle.HIGHEST_PROTOCOL))

    try:
        job, arguments = pickle.loads(request)
        result = job(*arguments)
        if inspect.isgenerator(result):
            for one in result:
                tell("yielded", one)
            result = None
        tell("returned", result)
    except (Exception, SystemExit) as error:
        tell("raised", _sendable(error))


def _sendable(error: BaseException) -> BaseException:
    """The error, if it is typed or an OSError and can be sent; a RoundError otherwise."""
    if isinstance(error, F2LError | OSError):
        # Not every subclass of an OSError can be read again.
        with suppress(Exception):
            pickle.loads(pickle.dumps(error))
            return error
    return RoundError(
        "a task failed",
        got=f"{type(error).__name__}: {error}",
        transient=is_disk_failure(error),
    )


if __name__ == "__main__":
    main()
