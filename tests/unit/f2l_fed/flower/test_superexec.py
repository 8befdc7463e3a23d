from __future__ import annotations

import subprocess
import sys

from f2l_fed.flower.superexec import start
from tests.support.waiting import PATIENCE_S

CHILD = """
import pathlib, sys
print(pathlib.Path("/proc/self/cmdline").read_text().replace(chr(0), " "))
print(pathlib.Path(sys.argv[sys.argv.index("--token-file") + 1]).read_text())
"""


def test_a_task_gets_its_token_and_its_command_line_does_not_say_it():
    command = [sys.executable, "-c", CHILD, "--insecure", "--token", "s3cret", "--parent-pid", "7"]
    with start(command, stdout=subprocess.PIPE) as process:
        output, _ = process.communicate(timeout=PATIENCE_S)
    said = output.decode().splitlines()
    assert said[-1] == "s3cret"
    assert all("s3cret" not in line for line in said[:-1])
    assert "--insecure --token-file /proc/self/fd/" in said[-2]
    assert said[-2].rstrip().endswith("--parent-pid 7")


def test_a_command_without_a_token_is_started_as_it_is():
    with start([sys.executable, "-c", "print(1)"], stdout=subprocess.PIPE) as process:
        assert process.communicate(timeout=PATIENCE_S)[0] == b"1\n"
