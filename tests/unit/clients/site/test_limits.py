from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from clients.site.limits import LimitsConfig, within
from f2l_fed.errors import ConfigError, PolicyRefusal

LOOK = """
import json, os, resource
from clients.site import limits
limits.apply(os.environ)
print(json.dumps([len(os.sched_getaffinity(0)), os.getpriority(os.PRIO_PROCESS, 0),
                  resource.getrlimit(resource.RLIMIT_DATA)[0]]))
"""


def test_a_process_keeps_its_limits_and_passes_them_on():
    limits = LimitsConfig(cpus=1, memory_mb=1000, niceness=7).environment()
    child = [sys.executable, "-c", LOOK]
    done = subprocess.run(child, env={**os.environ, **limits}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    nice = max(7, os.getpriority(os.PRIO_PROCESS, 0))
    assert json.loads(done.stdout) == [1, nice, 1000 * 2**20]


def test_what_takes_too_long_is_refused_with_a_code():
    with pytest.raises(PolicyRefusal, match="took-too-long"), within(1):
        time.sleep(30)
    with within(1):
        pass


@pytest.mark.parametrize(
    "value", [{"cpus": -1}, {"memory_mb": 5}, {"niceness": 20}, {"task_seconds": -1}]
)
def test_invalid_limits_are_refused(value):
    with pytest.raises(ConfigError, match=f"{next(iter(value))} is out of range"):
        LimitsConfig(**value)
