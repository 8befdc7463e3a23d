"""A machine so busy that the process of a task needs long for its imports.

`slowed` writes a ``sitecustomize`` that, on ``PYTHONPATH``, makes each process of a task wait at
its first import of a large library, and note its process id. The rest of the machine is as fast as
ever, so a test waits no longer than it has to. Other parts are slowed by words of their commands.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_CODE = """
import os, sys, time

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            sys.meta_path.remove(self)
            with open({starts!r}, "a") as file:
                file.write(f"{{os.getpid()}}\\n")
            time.sleep({seconds})

if any(word in " ".join(sys.orig_argv) for word in {words!r}):
    sys.meta_path.insert(0, Slow())
"""


@dataclass(frozen=True)
class BusyMachine:
    """The environment of a slow machine, and the task processes that it has started.

    Args:
        environment: Variables.
        file: One process id a line.
    """

    environment: Mapping[str, str]
    file: Path

    def starts(self) -> list[int]:
        return [int(line) for line in self.file.read_text().split()] if self.file.exists() else []


def slowed(
    folder: Path, *, seconds: float, words: tuple[str, ...] = ("clientapp", "serverapp")
) -> BusyMachine:
    """A machine on which processes with one of the words in their command line import slowly."""
    (modules := folder / "slow").mkdir(parents=True)
    starts = modules / "starts"
    text = _CODE.format(starts=str(starts), seconds=seconds, words=words)
    (modules / "sitecustomize.py").write_text(text)
    before = os.environ.get("PYTHONPATH")
    return BusyMachine(
        {"PYTHONPATH": os.pathsep.join(filter(None, (str(modules), before)))}, starts
    )
