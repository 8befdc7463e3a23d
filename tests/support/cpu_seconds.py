"""CPU seconds of every test file, its child processes included, as a pytest plugin.

``pytest -p tests.support.cpu_seconds --cpu-seconds FILE.json`` writes them; with xdist each worker
counts its own. A worker adopts the orphans of its tests, so that what daemons used is counted too.
"""

from __future__ import annotations

import ctypes
import json
import os
import time
from collections import defaultdict
from pathlib import Path

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


def _used() -> float:
    """CPU seconds of this process, of its ended children, and of its living descendants."""
    times = os.times()
    total = times.user + times.system + times.children_user + times.children_system
    parents: dict[int, int] = {}
    spent: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(entry.name)] = int(fields[1])
        spent[int(entry.name)] = sum(map(int, fields[11:15])) / _TICKS
    own = os.getpid()
    children = defaultdict(list)
    for pid, parent in parents.items():
        children[parent].append(pid)
    waiting = list(children[own])
    while waiting:
        pid = waiting.pop()
        total += spent[pid]
        waiting += children[pid]
    return total
