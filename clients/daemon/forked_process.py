"""The fork server as seen by what starts the tasks: its start and end, and a task's process."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress

SERVE = "--serve"
"""Argument before the number of the open socket on which a fork server is asked.

Its first answer comes with an open file that stands for the new process, the second is the exit
code.
"""

_LONGEST_ANSWER = 64


class ForkedProcess:
    """The process of a task, which a fork server begins as soon as it is able to.

    Until then the fork server stands for it: its end is the end of the process.

    Args:
        server: The fork server.
        control: Its socket, on which the process has been asked for.
    """

    def __init__(self, server: subprocess.Popen[bytes], control: socket.socket) -> None:
        self._server, self._control = server, control
        self._process: int | None = None
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._ended_within(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code once it has ended.

        Raises:
            subprocess.TimeoutExpired: If it runs for so many seconds more.
        """
        code = self._ended_within(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self._server.args, timeout or 0.0)
        return code

    def terminate(self) -> None:
        """Asks it to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it."""
        self._signal(signal.SIGKILL)

    def close(self) -> None:
        """Forgets it; it goes on if it has not ended."""
        if self._process is not None:
            os.close(self._process)
            self._process = None

    def _signal(self, number: int) -> None:
        self.poll()
        if self._code is not None:
            return
        if self._process is None:
            self._server.send_signal(number)
        else:
            # It may end at this moment.
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, number)

    def _ended_within(self, timeout: float | None) -> int | None:
        if self._code is None and self._process is None:
            if not _readable(self._control, timeout):
                return None
            if files := self._told()[1]:
                self._process = files[0]
            else:
                self._code = self._server.wait()
        if self._code is None and _readable(self._process, timeout):
            # A fork server that was killed can't tell how a process has ended that outlived it.
            told, _ = self._told()
            self._code = int(told) if told else -signal.SIGKILL
            self.close()
        return self._code

    def _told(self) -> tuple[bytes, list[int]]:
        """The next answer of the fork server with its open files; nothing if it has ended."""
        try:
            answer, files, _, _ = socket.recv_fds(self._control, _LONGEST_ANSWER, 1)
        except ConnectionError:
            return b"", []
        return answer, files


class ForkServer:
    """A fork server, started with the first task; it takes one task at a time.

    Args:
        command: Its command line, to which the socket is added.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._server: tuple[subprocess.Popen[bytes], socket.socket] | None = None
        self._last: ForkedProcess | None = None

    @staticmethod
    def possible() -> bool:
        """Whether this machine can do it: Linux from 5.3 on."""
        try:
            os.close(os.pidfd_open(os.getpid()))
        except (AttributeError, OSError):
            return False
        return True

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._server is not None and self._server[0].poll() is None

    def start(self, arguments: Sequence[str], files: Sequence[int]) -> ForkedProcess:
        """Asks for a process; the one before has to be over.

        Args:
            arguments: Its arguments, with the name of the program.
            files: Numbers of open files for it.

        Raises:
            OSError: If there is no fork server and none can be started.
        """
        if self._server is None or not self.running:
            self.end()
            self._server = self._begun()
        process, control = self._server
        socket.send_fds(control, [json.dumps(list(arguments)).encode()], list(files))
        self._last = ForkedProcess(process, control)
        return self._last

    def end(self) -> None:
        """Ends it, and frees its memory; a process that it has forked goes on."""
        if self._last:
            self._last.close()
        if self._server:
            process, control = self._server
            control.close()
            process.kill()
            process.wait()
        self._server = self._last = None

    def _begun(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        own, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            try:
                process = subprocess.Popen(
                    [*self._command, SERVE, str(its.fileno())],
                    pass_fds=(its.fileno(),),
                    # A library of numpy's would start threads as it is loaded.
                    env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
                )
            except OSError:
                own.close()
                raise
        return process, own


def _readable(file: int | socket.socket | None, timeout: float | None) -> bool:
    return file is not None and bool(select.select([file], [], [], timeout)[0])
