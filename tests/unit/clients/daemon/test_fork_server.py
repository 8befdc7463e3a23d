"""Processes that a fork server forks, and what is left when one of them is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients.daemon.forked_process import ForkedProcess, ForkServer
from f2l_fed.flower.superexec import token_file
from tests.support.waiting import PATIENCE_S, holds

pytestmark = pytest.mark.skipif(not ForkServer.possible(), reason="needs pidfd_open")

SERVER = """
import os, sys
sys.path.insert(0, {folder!r})
import changing
from clients.daemon.fork_server import serve

def tell(*words):
    os.write(int(os.environ["F2L_TASK_STARTING"]), " ".join(map(str, words)).encode())

def run():
    exec(sys.argv[1])

serve(int(sys.argv[-1]), run)
"""

DRIVER = """
import os, sys, time
from clients.daemon.forked_process import ForkServer
from clients.site import limits
from f2l_fed.flower.superexec import token_file

limits.apply(os.environ)
server = ForkServer([sys.executable, sys.argv[1]])
with token_file("t") as token:
    process = server.start(["task", sys.argv[2]], [token, 1])
process.wait()
print(" server", server._server[0].pid, flush=True)
time.sleep(3600)
"""


class Server:
    """A fork server whose processes run lines of Python, and what they say."""

    def __init__(self, folder: Path) -> None:
        self.changing, self.file = folder / "changing.py", folder / "server.py"
        self.changing.write_text("VALUE = 1\n")
        self.file.write_text(SERVER.format(folder=str(folder)))
        self.forks = ForkServer([sys.executable, str(self.file)])

    def begun(self, code: str, token: str = "token") -> tuple[ForkedProcess, int]:
        """A process, and the open file from which its words can be read."""
        words, its = os.pipe()
        try:
            with token_file(token) as file:
                return self.forks.start(["task", code], [file, its]), words
        finally:
            os.close(its)

    def run(self, code: str, token: str = "token") -> tuple[int, str]:
        """The exit code of a process and its words."""
        process, words = self.begun(code, token)
        with os.fdopen(words) as said:
            return process.wait(PATIENCE_S), said.read()

    def pid(self) -> int:
        return int(self.run("tell(os.getppid())")[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("forks"))
    yield server
    server.forks.end()


TOKEN = """
from pathlib import Path
words = Path("/proc/self/cmdline").read_text() + str(dict(os.environ))
tell(sys.argv[2], Path(sys.argv[3]).read_text(), "s3cret" in words)
"""
OPEN = "tell(*sorted(os.readlink(file.path) for file in os.scandir(f'/proc/{os.getppid()}/fd')))"


def test_a_token_reaches_its_own_process_alone(server):
    assert server.run(TOKEN, "s3cret") == (0, "--token-file s3cret False")
    assert server.run(TOKEN, "another") == (0, "--token-file another False")
    assert "memfd" not in server.run(OPEN)[1]


@pytest.mark.parametrize(
    ("code", "ended"),
    [
        ("pass", 0),
        ("sys.exit(3)", 3),
        ("sys.exit('no task')", 1),
        ("1 / 0", 1),
        ("os.kill(os.getpid(), 9)", -9),
    ],
)
def test_the_end_of_a_process_is_told_and_the_next_one_runs(server, code, ended):
    before = server.pid()
    assert server.run(code)[0] == ended
    assert server.pid() == before


def test_a_process_is_asked_to_end_and_killed(server):
    process, words = server.begun("import signal; signal.signal(15, 1); tell(1); signal.pause()")
    assert os.read(words, 1) == b"1"
    assert process.poll() is None
    process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.1)
    process.kill()
    assert process.wait(PATIENCE_S) == -signal.SIGKILL
    os.close(words)


RANDOM = """
import random, numpy as np, torch
tell(random.random(), np.random.random(), torch.rand(1).item())
"""


def test_every_process_has_random_numbers_of_its_own(server):
    first, second = (server.run(RANDOM)[1].split() for _ in range(2))
    assert all(a != b for a, b in zip(first, second, strict=True))


def test_it_has_one_thread_and_no_accelerator_and_a_process_has_little_memory_of_its_own(server):
    assert server.run("tell(len(os.listdir(f'/proc/{os.getppid()}/task')))")[1] == "1"
    assert server.run("import torch; tell(torch.cuda.is_initialized())")[1] == "False"
    said = server.run("tell(open('/proc/self/smaps_rollup').read())")[1]
    (own,) = (int(line.split()[1]) for line in said.splitlines() if "Private_Dirty" in line)
    assert own < 30_000


def test_a_changed_file_of_a_loaded_module_is_noticed(server):
    before = server.pid()
    assert server.run("tell(changing.VALUE)")[1] == "1"
    server.changing.write_text("VALUE = 22\n")
    assert server.run("tell(changing.VALUE)")[1] == "22"
    assert server.pid() == before


def test_a_killed_fork_server_is_replaced(server):
    process, words = server.begun("tell(os.getppid()); os.read(0, 1); import time; time.sleep(1)")
    before = int(os.read(words, 99))
    os.kill(before, signal.SIGKILL)
    assert holds(lambda: not server.forks.running)
    # Its process goes on, and its end is noticed.
    assert process.wait(PATIENCE_S) == -signal.SIGKILL
    os.close(words)
    assert server.pid() not in (0, before)


def test_one_that_ends_before_it_forks_has_ended_the_process(tmp_path):
    (tmp_path / "server.py").write_text("import sys; sys.exit(7)")
    forks = ForkServer([sys.executable, str(tmp_path / "server.py")])
    with token_file("token") as file:
        assert forks.start(["task"], [file]).wait(PATIENCE_S) == 7
    forks.end()


LIMITS = """
import resource
tell(len(os.sched_getaffinity(0)), os.getpriority(0, 0), resource.getrlimit(resource.RLIMIT_DATA))
"""


def test_it_works_within_the_sites_limits_and_ends_with_the_one_that_asks(server):
    limited = {"F2L_LIMIT_CPUS": "1", "F2L_LIMIT_MEMORY_MB": "4096", "F2L_LIMIT_NICE": "19"}
    command = [sys.executable, "-c", DRIVER, str(server.file), LIMITS]
    with subprocess.Popen(command, env=os.environ | limited, stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        said = driver.stdout.readline().decode()
        driver.kill()
    limits, pid = said.split(" server ")
    assert limits == f"1 19 ({2**32}, {2**32})"
    assert holds(lambda: not Path(f"/proc/{int(pid)}/cmdline").exists())
