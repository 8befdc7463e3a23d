"""CPU seconds of every test file, its child processes included, as a pytest plugin.

``pytest -p tests.support.cpu_seconds --cpu-seconds=FILE.json`` writes them; with xdist each worker
counts its own. A worker adopts the orphans of its tests, so that what daemons used is counted too,
and collects those that have ended as the system's first process would: a daemon may wait until
nothing is left of its process group.
"""

from __future__ import annotations

import _posixsubprocess
import ctypes
import json
import os
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

_ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER
_TICKS = os.sysconf("SC_CLK_TCK")
_FIGURES = "cpu_seconds"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cpu-seconds", metavar="FILE", help="write CPU and wall seconds per file")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--cpu-seconds"):
        config.pluginmanager.register(_Meter(config), "cpu-meter")


class _Meter:
    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._spent: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._is_worker = hasattr(config, "workerinput")
        ctypes.CDLL(None).prctl(_ADOPT_ORPHANS, 1, 0, 0, 0)
        threading.Thread(target=_collect_orphans, args=(_own_children(),), daemon=True).start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item):
        began, cpu = time.monotonic(), _used()
        result = yield
        spent = self._spent[item.nodeid.partition("::")[0]]
        spent[0] += _used() - cpu
        spent[1] += time.monotonic() - began
        return result

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node) -> None:
        for path, (cpu, wall) in node.workeroutput.get(_FIGURES, {}).items():
            self._spent[path][0] += cpu
            self._spent[path][1] += wall

    def pytest_sessionfinish(self) -> None:
        if self._is_worker:
            self._config.workeroutput[_FIGURES] = dict(self._spent)
            return
        rows = {
            path: {"cpu_s": round(cpu, 2), "wall_s": round(wall, 2)}
            for path, (cpu, wall) in sorted(self._spent.items(), key=lambda row: -row[1][0])
        }
        Path(self._config.getoption("--cpu-seconds")).write_text(json.dumps(rows, indent=1) + "\n")


def _own_children() -> set[int]:
    """Process ids that this process starts from now on, which are for the tests to wait for."""
    own: set[int] = set()

    def noted(start: Callable[..., int]) -> Callable[..., int]:
        def call(*arguments: Any, **named: Any) -> int:
            pid = start(*arguments, **named)
            own.add(pid)
            return pid

        return call

    for module, name in (
        (os, "fork"),
        (os, "posix_spawn"),
        (_posixsubprocess, "fork_exec"),
        (subprocess, "_fork_exec"),
    ):
        setattr(module, name, noted(getattr(module, name)))
    return own


def _collect_orphans(own: set[int]) -> None:
    before: set[int] = set()
    while True:
        time.sleep(0.3)
        adopted = {pid for pid, (parent, _) in _processes().items() if parent == os.getpid()} - own
        # Only at a second look: one that has just been started may not be noted yet.
        for pid in adopted & before:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        before = adopted


def _processes() -> dict[int, tuple[int, float]]:
    """Parent and CPU seconds of every process, by its id."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            found[int(entry.name)] = (int(fields[1]), sum(map(int, fields[11:15])) / _TICKS)
    return found


def _used() -> float:
    """CPU seconds of this process, of its ended children, and of its living descendants."""
    times = os.times()
    total = times.user + times.system + times.children_user + times.children_system
    processes, children = _processes(), defaultdict(list)
    for pid, (parent, _) in processes.items():
        children[parent].append(pid)
    waiting = list(children[os.getpid()])
    while waiting:
        pid = waiting.pop()
        total += processes[pid][1]
        waiting += children[pid]
    return total
