"""Limits on what the daemon takes of the operator's machine."""

from __future__ import annotations

import os
import resource
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from f2l_fed.core.validation import require
from f2l_fed.errors import PolicyRefusal

_CPUS, _MEMORY, _NICE = "F2L_LIMIT_CPUS", "F2L_LIMIT_MEMORY_MB", "F2L_LIMIT_NICE"


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """Limits on the daemon's work.

    Args:
        cpus: Processors that it may use; 0 for all.
        memory_mb: Largest memory of each of its processes, in MiB; 0 for no limit.
        niceness: Precedence of other programs, 0 to 19.
        task_seconds: Longest time for one task; 0 for no limit.
    """

    cpus: int = 0
    memory_mb: int = 0
    niceness: int = 5
    task_seconds: int = 3600

    def __post_init__(self) -> None:
        require(self.cpus >= 0, self, "cpus", ">= 0")
        fits = self.memory_mb == 0 or self.memory_mb >= 512
        require(fits, self, "memory_mb", "0, or >= 512: PyTorch alone takes that")
        require(0 <= self.niceness <= 19, self, "niceness", "0 to 19")
        require(self.task_seconds >= 0, self, "task_seconds", ">= 0")

    def environment(self) -> dict[str, str]:
        """Environment variables that hand the limits to a process; see `apply`."""
        limits = {_CPUS: self.cpus, _MEMORY: self.memory_mb, _NICE: self.niceness}
        threads = {"OMP_NUM_THREADS": self.cpus} if self.cpus else {}
        return {name: str(value) for name, value in {**limits, **threads}.items()}


def apply(environment: Mapping[str, str]) -> None:
    """Limits this process and all that it will start.

    Args:
        environment: Made by `LimitsConfig.environment`; other variables don't matter.
    """
    cpus, memory_mb, niceness = (int(environment.get(k, "0")) for k in (_CPUS, _MEMORY, _NICE))
    if cpus:
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[-cpus:])
    if memory_mb:
        limit = memory_mb * 2**20
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    if niceness > os.getpriority(os.PRIO_PROCESS, 0):
        os.setpriority(os.PRIO_PROCESS, 0, niceness)


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raises PolicyRefusal in the block once it has taken this long.

    Only in a process's main thread, where Flower runs a task; elsewhere there is no limit.
    """
    if not seconds or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_: int, __: FrameType | None) -> None:
        raise PolicyRefusal("took-too-long")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
