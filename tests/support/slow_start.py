"""Ray on a machine so busy that the first start takes too long: ``-m tests.support.slow_start``.

Ends well if a second start came to its end. The machine has one CPU, and a retraining that would
need more is told so; then nothing is left of either start, neither processes nor files.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private import node, services

from f2l_fed.config import RayConfig
from f2l_fed.errors import ConfigError
from server.cluster.connection import connect
from tests.support.waiting import holds

_PATIENCE_S = 31


class Clock:
    """The time as Ray's start sees it, which jumps when nothing was heard of a node."""

    late_s = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def monotonic(self) -> float:
        return time.monotonic() + self.late_s


def heads() -> set[int]:
    """The living head processes that this process has started."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and fields[0] != "Z" and b"gcs_server" in command:
            found.add(int(entry.name))
    return found


def main() -> None:
    """See the module."""
    clock, begun, heard, folders = Clock(), set[int](), services.get_node, set[Path]()

    def first_too_late(*arguments: Any) -> Any:
        begun.update(heads())
        folders.add(Path(os.environ["RAY_AUTH_TOKEN_PATH"]).parent)
        if not clock.late_s:
            clock.late_s = _PATIENCE_S
            raise RuntimeError("nothing is known of the node")
        return heard(*arguments)

    node.time = clock
    services.get_node = first_too_late
    with pytest.raises(ConfigError, match=r"task_cpus: a retraining needs more CPUs than there"):
        connect(RayConfig(cpus=1, task_cpus=1, train_workers=1))
    assert len(begun) == 2, begun
    assert holds(lambda: not heads()), heads()
    assert not ray.is_initialized()
    left = [path for path in folders if path.exists()]
    assert len(folders) == 1, folders
    assert not left, left


if __name__ == "__main__":
    main()
