"""The fork server of a process: what it has imported, its forked processes need not import.

It is `server.cluster.fork_server_main`, asked on a socket that nobody else has.
"""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import threading

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


class WorkerForkServer:
    """The fork server as its parent sees it, started with the first request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: tuple[subprocess.Popen[bytes], socket.socket] | None = None

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
        """
        with self._lock:
            try:
                socket.send_fds(self._started(), [b"1"], [channel, life])
            except ConnectionError:
                # It was killed.
                self._end()
                socket.send_fds(self._started(), [b"1"], [channel, life])

    def end(self) -> None:
        """Ends it; processes that it has forked go on."""
        with self._lock:
            self._end()

    @property
    def pid(self) -> int:
        """Its id; 0 if it has not been started."""
        return self._server[0].pid if self._server else 0

    def _started(self, *modules: str) -> socket.socket:
        if self._server is None:
            own, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with its:
                path = os.pathsep.join(sys.path)
                program = [sys.executable, "-P", "-m", "server.cluster.fork_server_main"]
                process = subprocess.Popen(
                    [*program, str(its.fileno()), *modules],
                    pass_fds=(its.fileno(),),
                    env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": path},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    # Ctrl-C is for the parent.
                    process_group=0,
                )
            self._server = process, own
        return self._server[1]

    def _end(self) -> None:
        if self._server:
            process, control = self._server
            self._server = None
            control.close()
            process.kill()
            process.wait()


FORK_SERVER = WorkerForkServer()
"""The fork server of this process."""

atexit.register(FORK_SERVER.end)
