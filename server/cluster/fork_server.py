"""The fork server of a process: what it has imported, its forked processes need not import.

It is `server.cluster.fork_server_main`, asked on a socket that nobody else has.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from typing import IO, NamedTuple

_ENVIRONMENT = {
    # A library of numpy's would start threads as it is loaded.
    "OPENBLAS_NUM_THREADS": "1",
    # glibc keeps 32 MiB of freed memory. Without it every step of a small network gives its memory
    # back and faults it in again.
    "MALLOC_TOP_PAD_": str(32 << 20),
}
"""Of it and the processes that are forked from it."""


OF_SITES = ("clients.client_app", "server.simulation.runtime")
"""Names of the modules that the processes of simulated sites need."""


_KILLED = (-signal.SIGKILL, -signal.SIGTERM)


class _Server(NamedTuple):
    process: subprocess.Popen[bytes]
    control: socket.socket
    errors: IO[bytes]


class WorkerForkServer:
    """The fork server as its parent sees it, started with the first request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: _Server | None = None

    def start(self, *modules: str) -> None:
        """Starts it, if it does not run; its imports take seconds, which nobody waits for here.

        Args:
            modules: Names of modules that it imports besides those of the heavy work.

        Raises:
            OSError: If no process can be started.
        """
        with self._lock:
            self._started(*modules)

    def fork(self, channel: int, life: int) -> None:
        """Asks for a process; that it does not come shows in its open files.

        Args:
            channel: Number of the open file on which it gets its jobs.
            life: Number of an open file whose other end is closed when it shall end.

        Raises:
            Interrupted: See `check`.
        """
        with self._lock:
            try:
                socket.send_fds(self._started(), [b"1"], [channel, life])
            except ConnectionError:
                self._check()
                socket.send_fds(self._started(), [b"1"], [channel, life])

    def check(self) -> None:
        """Says why no process comes, if it could not go on; one that was killed is started again.

        Raises:
            Interrupted: If it has ended, as where a module can't be imported.
        """
        with self._lock:
            self._check()

    def end(self) -> None:
        """Ends it; processes that it has forked go on."""
        with self._lock:
            self._end()

    @property
    def pid(self) -> int:
        """Its id; 0 if it has not been started."""
        return self._server.process.pid if self._server else 0

    def _started(self, *modules: str) -> socket.socket:
        if self._server is None:
            own, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            errors = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as it runs)
            with its:
                path = os.pathsep.join(sys.path)
                program = [sys.executable, "-P", "-m", "server.cluster.fork_server_main"]
                process = subprocess.Popen(
                    [*program, str(its.fileno()), *modules],
                    pass_fds=(its.fileno(),),
                    env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": path},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    # Ctrl-C is for the parent.
                    process_group=0,
                )
            self._server = _Server(process, own, errors)
        return self._server.control

    def _check(self) -> None:
        if self._server is None or not _hung_up(self._server.control):
            return
        status = self._server.process.wait()
        self._server.errors.seek(0)
        told = self._server.errors.read().decode(errors="replace").strip()
        self._end()
        if status not in _KILLED:
            # It imports what a command can begin without.
            from server.rounds.state import Interrupted

            raise Interrupted(
                "the processes of the heavy work can't start",
                got=told.rpartition("\n")[2] or f"status {status}",
                remedy="Mend the installation, then go on; what sites have sent is in the zoo.",
            )

    def _end(self) -> None:
        if self._server:
            process, control, errors = self._server
            self._server = None
            control.close()
            errors.close()
            process.kill()
            process.wait()


def _hung_up(control: socket.socket) -> bool:
    """Whether the other end is closed, by which nothing is ever sent."""
    try:
        return not control.recv(1, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


FORK_SERVER = WorkerForkServer()
"""The fork server of this process."""

atexit.register(FORK_SERVER.end)
