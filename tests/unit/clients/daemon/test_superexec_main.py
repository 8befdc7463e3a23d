from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from flwr.supercore.constant import TaskType
from flwr.supercore.superexec.executor import ExecutionSpec

from clients.daemon.forked_process import ForkedProcess, ForkServer
from clients.daemon.superexec_main import ForkingExecutor
from f2l_fed.flower.superexec import TaskProcess
from tests.support.waiting import PATIENCE_S

FORKS = """
import os, sys
from clients.daemon.fork_server import serve
serve(int(sys.argv[-1]), lambda: os.write(int(os.environ["F2L_TASK_STARTING"]), b"forked"))
"""


def started(executor: ForkingExecutor, kind: TaskType) -> tuple[TaskProcess, bytes]:
    """The process of a task that has ended, and what it has written."""
    spec = ExecutionSpec(
        task_type=kind,
        runtime_api_address="127.0.0.1:1",
        token="s3cret",
        insecure=True,
        root_certificates_path=None,
        runtime_dependency_install=False,
        parent_pid=os.getpid(),
        suppress_output=False,
        task_id=1,
    )
    words, its = os.pipe()
    process = executor.start_process(spec, its)
    os.close(its)
    assert process.wait(PATIENCE_S) == 0
    with os.fdopen(words, "rb") as said:
        return process, said.read()


@pytest.fixture
def executor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ForkingExecutor:
    for name in ("flwr-clientapp", "flwr-serverapp"):
        (tmp_path / name).write_text('#!/bin/sh\nprintf new > "/proc/self/fd/$F2L_TASK_STARTING"\n')
        (tmp_path / name).chmod(0o700)
    (tmp_path / "forks.py").write_text(FORKS)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return ForkingExecutor(command=[sys.executable, str(tmp_path / "forks.py")], idle_s=0.0)


@pytest.mark.skipif(not ForkServer.possible(), reason="needs pidfd_open")
def test_the_process_of_a_sites_task_is_forked_and_an_idle_fork_server_ends(executor):
    process, said = started(executor, TaskType.CLIENT_APP)
    assert isinstance(process, ForkedProcess)
    assert said == b"forked"
    assert executor.forking
    executor.reconcile()
    assert not executor.forking


def test_other_processes_are_new_ones_and_all_are_where_none_can_be_forked(executor, monkeypatch):
    assert started(executor, TaskType.SERVER_APP)[1] == b"new"
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    assert started(executor, TaskType.CLIENT_APP)[1] == b"new"
    assert not executor.forking
