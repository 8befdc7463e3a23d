"""A process that has imported what tasks need, and forks one for each task.

Nothing runs in it: it has no thread, no connection and no accelerator, and it never reads a task's
token, whose open file it hands on. It ends with the process that asks it. When a file of a loaded
module has changed, as by an upgrade, it begins anew before the next task.
"""

from __future__ import annotations

import gc
import json
import os
import select
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

import numpy as np
import torch

from f2l_fed.flower.inner_access import STARTING

_LONGEST_REQUEST = 65_536


def serve(descriptor: int, run: Callable[[], None]) -> NoReturn:
    """Forks a process for each request.

    Args:
        descriptor: Number of the open socket.
        run: The work of such a process, which sees its arguments and environment as if it had been
            started with them.
    """
    control = socket.socket(fileno=descriptor)
    loaded = _loaded_files()
    # The collector writes to all objects, whose memory would then be copied for each process.
    gc.freeze()
    while True:
        select.select([control], [], [])
        if _loaded_files() != loaded:
            # The request waits in the socket, which the new program finds open.
            os.execv(sys.executable, sys.orig_argv)
        request, files, _, _ = socket.recv_fds(control, _LONGEST_REQUEST, 2)
        if not request:
            sys.exit()
        waiting, told = os.pipe()
        if not (pid := os.fork()):
            control.close()
            os.close(told)
            if not os.read(waiting, 1):
                # The server has ended before anybody could know of this process.
                os._exit(1)
            os.close(waiting)
            _become(json.loads(request), *files)
            _end_after(run)
        for file in (*files, waiting):
            os.close(file)
        _accompany(pid, control, told)


def _become(arguments: list[str], token: int, starting: int) -> None:
    """Makes a forked process like one that was started with these arguments and open files."""
    sys.argv = [*arguments, "--token-file", f"/proc/self/fd/{token}"]
    os.environ[STARTING] = str(starting)
    # Python's own generator is seeded anew by itself.
    torch.seed()
    np.random.seed()


def _end_after(run: Callable[[], None]) -> NoReturn:
    """Ends a forked process after its work, without the interpreter's own end.

    That would go through all objects, whose memory would be copied.
    """
    code: object = 1
    try:
        run()
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        if code is not None and not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(code or 0)


def _accompany(pid: int, control: socket.socket, told: int) -> None:
    """Tells of a new process, which then begins, and of its end."""
    process = os.pidfd_open(pid)
    try:
        socket.send_fds(control, [b"begun"], [process])
        os.write(told, b"1")
        ready, _, _ = select.select([process, control.fileno()], [], [])
        if process not in ready:
            raise BrokenPipeError
        _, status = os.waitpid(pid, 0)
        control.send(str(os.waitstatus_to_exitcode(status)).encode())
    except BrokenPipeError:
        # The one that asked has ended, which the process of the task notices itself.
        sys.exit()
    finally:
        os.close(process)
        os.close(told)


def _loaded_files() -> dict[str, tuple[int, int, int]]:
    """The files of all loaded modules: number, size and time of the last change."""
    found = {}
    for module in list(sys.modules.values()):
        if path := getattr(module, "__file__", None):
            with suppress(OSError):
                state = os.stat(path)  # noqa: PTH116 (thousands of them)
                found[path] = (state.st_ino, state.st_size, state.st_mtime_ns)
    return found
