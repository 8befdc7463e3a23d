"""A federation whose process is killed at a chosen durable step, as a program of its own.

Every write that has to survive ends in one of a few system calls. They are counted, and before the
wanted one the process gets SIGKILL, so that no handler runs and nothing is flushed. A run that is
killed is a fork of this program, which has imported everything once.

    python -m tests.support.crash < jobs

Every line of the input is ``{"root": …, "rounds": …, "kills": […]}``: rounds are run in a folder,
the first process is killed after so many steps, the next one after so many of its own, and so on;
the last one lives. Every line of the output is a list: how each of them ended, and the last one's
steps.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

_CALLS = ("fsync", "replace", "rename", "link", "unlink", "rmdir")


def arm(after: int | None, told: list[str]) -> None:
    """Counts durable steps of this process from now on, and kills it before one of them."""
    left = [after]

    def counted(name: str) -> Any:
        real = getattr(os, name)

        def call(*arguments: Any, **named: Any) -> Any:
            if left[0] is not None:
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
            told.append(f"{name} {_shown(arguments)}")
            return real(*arguments, **named)

        return call

    for name in _CALLS:
        setattr(os, name, counted(name))


def _shown(arguments: tuple[Any, ...]) -> str:
    if isinstance(arguments[0], int):
        return str(Path(f"/proc/self/fd/{arguments[0]}").readlink())
    return " ".join(str(argument) for argument in arguments)


def run(root: Path, rounds: int) -> None:
    """Conducts what is left of so many rounds."""
    from server.federation.folder import Federation
    from server.rounds import state_files
    from tests.support.inline import run_inline

    federation = Federation.open(root)
    known = state_files.load_states(root / "rounds")
    begun = known[-1].number if known else 0
    run_inline(federation, max(0, rounds - begun))


def lives(root: Path, rounds: int, after: int | None) -> list[str] | None:
    """Runs them in a fork; its steps, or None if it was killed."""
    told: list[str] = []
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        arm(after, told)
        run(root, rounds)
        with os.fdopen(into, "w") as pipe:
            pipe.write(json.dumps(told))
        os._exit(0)
    os.close(into)
    with os.fdopen(out) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return None
    if status != 0:
        raise SystemExit(f"the run failed with status {status}")
    steps: list[str] = json.loads(text)
    return steps


def main() -> None:
    """See the module."""
    import torch

    # A pool of threads does not survive a fork.
    torch.set_num_threads(1)
    # Torch's first optimiser imports it, and would do so in every fork.
    import torch._dynamo

    import tests.support.inline  # noqa: F401

    for line in sys.stdin:
        job = json.loads(line)
        root, rounds = Path(job["root"]), int(job["rounds"])
        ends = ["lived" if lives(root, rounds, k) is not None else "killed" for k in job["kills"]]
        print(json.dumps({"ends": ends, "steps": lives(root, rounds, None)}), flush=True)


if __name__ == "__main__":
    main()
