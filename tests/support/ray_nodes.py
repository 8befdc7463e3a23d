"""Nodes of a Ray cluster on loopback, with ports and folders of their own, ended by their ids.

Each cluster asks for a token, which is in a file of the folder that it is started in.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from f2l_fed.config import RayConfig
from tests.support.deployment import free_ports
from tests.support.waiting import PATIENCE_S, holds

Node = subprocess.Popen[bytes]
_STARTS = 6
_PATIENT = {
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": f"{PATIENCE_S:.0f}",
    "RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT": f"{PATIENCE_S:.0f}",
}
"""Ray gives its job server's many processes half a minute."""
MARKS = [
    pytest.mark.ray,
    pytest.mark.slow,
    # Ray leaves the daemons that it has started to the system.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
"""Of modules whose tests start them."""


@contextmanager
def two_nodes(folder: Path, ports: Sequence[int]) -> Iterator[list[Node]]:
    """A head and a worker, which need five ports."""
    head = _head(ports[:3], ["--include-dashboard=false"])
    worker = ["start", f"--address=127.0.0.1:{ports[0]}", *_ports(ports[3:5])]
    with _running(folder, [head, worker]) as nodes:
        yield nodes


@contextmanager
def job_server(folder: Path, ports: Sequence[int]) -> Iterator[RayConfig]:
    """A head with a job server, which needs six ports; the settings for it."""
    serving = ["--include-dashboard=true", f"--dashboard-port={ports[3]}"]
    serving += [f"--dashboard-agent-listen-port={ports[4]}"]
    serving += [f"--dashboard-agent-grpc-port={ports[5]}"]
    with _running(folder, [_head(ports[:3], serving)]):
        wait_until(lambda: accepts(ports[3]), "an open port of the job server")
        address = f"http://127.0.0.1:{ports[3]}"
        yield RayConfig(jobs=address, token_file=str(token_file(folder)))


def token_file(folder: Path) -> Path:
    """The file with the token of the clusters that are started in a folder."""
    path = folder / "ray-token"
    if not path.exists():
        path.touch(0o600)
        path.write_text(secrets.token_hex(32) + "\n")
    return path


def _head(ports: Sequence[int], more: Sequence[str]) -> list[str]:
    return [
        *("start", "--head", f"--port={ports[0]}", "--node-ip-address=127.0.0.1"),
        *_ports(ports[1:]),
        *more,
    ]


def _ports(ports: Sequence[int]) -> list[str]:
    return [f"--node-manager-port={ports[0]}", f"--object-manager-port={ports[1]}"]


@contextmanager
def _running(folder: Path, commands: Sequence[list[str]]) -> Iterator[list[Node]]:
    name = str(time.monotonic_ns())
    short = Path("/tmp") / f"f2l-{os.getpid()}-{name}"
    beside = str(Path(sys.executable).parent)
    # Jobs are started as "python".
    path = f"{beside}{os.pathsep}{os.environ.get('PATH', '')}"
    env = {**os.environ, **_PATIENT, "RAY_USAGE_STATS_ENABLED": "0", "PATH": path}
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token_file(folder))}
    common = ["--block", "--num-cpus=1", "--disable-usage-stats", "--object-store-memory=80000000"]
    nodes: list[Node] = []
    try:
        for command in commands:
            own, port = list[str](), 0
            if "--head" in command:
                # By itself every head of a machine takes the same port, and ends without it.
                (port,) = free_ports(1)
                own = [f"--temp-dir={short}", f"--ray-client-server-port={port}"]
            words = [f"{beside}/ray", *command, *own, *common]
            nodes.append(_started(words, env, folder, port))
        yield nodes
    finally:
        for node in nodes:
            end(node)
        shutil.rmtree(short, ignore_errors=True)


def _started(words: Sequence[str], env: dict[str, str], folder: Path, port: int) -> Node:
    """A node that runs. Ray gives it 30 seconds: on a busy machine it may take several starts."""
    for _ in range(_STARTS):
        log = folder / f"{time.monotonic_ns()}.log"
        with log.open("wb") as said:
            node = subprocess.Popen(
                words, env=env, stdout=said, stderr=said, start_new_session=True, cwd=folder
            )
        if _came_up(node, log, port):
            return node
        end(node)
    raise AssertionError(log.read_text())


def _came_up(node: Node, log: Path, port: int) -> bool:
    """Whether it says so and the last of a head's processes listens; without that it ends again."""

    def up() -> bool:
        return "Ray runtime started" in log.read_text() and (not port or accepts(port))

    return holds(lambda: up() or node.poll() is not None) and up()


def wait_until(true: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S) -> None:
    assert holds(true, timeout_s=timeout_s), f"no {what} within {timeout_s:g} s"


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def end(node: subprocess.Popen[bytes]) -> None:
    """Ends a node and everything in its session."""
    end_session(node.pid)
    node.wait(PATIENCE_S)


def end_session(session: int) -> None:
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        try:
            if os.getsid(pid) == session:
                os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
