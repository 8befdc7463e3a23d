"""The ``flower-superexec`` of server and sites, which keeps secrets out of argv.

Flower gives each task process a token that stands for the whole task, as an argument that every
user of the machine can read in ``/proc``. Here it is handed over in memory, through an open file
that only the new process inherits.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from flwr.supercore.cli.flower_superexec import flower_superexec
from flwr.supercore.superexec.executor import subprocess_executor

_TOKEN = "--token"


def start(arguments: Sequence[str], **settings: Any) -> subprocess.Popen[bytes]:
    """Starts a process as ``subprocess.Popen`` does, with its token in an inherited file.

    Args:
        arguments: The command line; a ``--token`` and what follows it are replaced.
        settings: Further arguments of ``Popen``.
    """
    command = list(arguments)
    if _TOKEN not in command:
        return subprocess.Popen(command, **settings)
    at = command.index(_TOKEN)
    descriptor = os.memfd_create("token", 0)
    try:
        os.write(descriptor, command[at + 1].encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        command[at : at + 2] = ["--token-file", f"/proc/self/fd/{descriptor}"]
        return subprocess.Popen(command, pass_fds=(descriptor,), **settings)
    finally:
        os.close(descriptor)


def main() -> None:
    """Runs ``flower-superexec`` with the arguments of the command line."""
    if not hasattr(subprocess_executor, "subprocess"):
        sys.exit("unknown version of Flower: it starts tasks in another way; nothing is run")
    setattr(  # noqa: B010
        subprocess_executor,
        "subprocess",
        SimpleNamespace(Popen=start, DEVNULL=subprocess.DEVNULL),
    )
    flower_superexec()


if __name__ == "__main__":
    main()
