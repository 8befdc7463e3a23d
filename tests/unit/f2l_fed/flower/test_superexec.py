from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn
from flwr.proto.task_pb2 import Task
from flwr.supercore.constant import TaskType
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.superexec.executor import ExecutionSpec
from flwr.supernode.main import create_app
from flwr.supernode.nodestate import NodeState, NodeStateFactory

from f2l_fed.flower.inner_access import SOCKET, STARTING
from f2l_fed.flower.superexec import OneTaskExecutor, TaskLimits, start
from tests.support.waiting import PATIENCE_S, holds

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


@dataclass(frozen=True)
class Node:
    """A real SuperNode's runtime interface on a socket, and the folder that stands for its PATH."""

    state: NodeState
    folder: Path

    def claimed(self, script: str) -> ExecutionSpec:
        """A task that has been claimed; its process runs a shell script."""
        command = self.folder / "flwr-clientapp"
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(0o700)
        number = self.state.create_task(TaskType.CLIENT_APP, run_id=1, fab_hash="x")
        assert number is not None
        token = self.state.claim_task(number)
        assert token is not None
        return ExecutionSpec(
            task_type=TaskType.CLIENT_APP,
            runtime_api_address="127.0.0.1:1",
            token=token,
            insecure=True,
            root_certificates_path=None,
            runtime_dependency_install=False,
            parent_pid=os.getpid(),
            suppress_output=False,
            task_id=number,
        )

    def task(self, spec: ExecutionSpec) -> Task:
        (task,) = self.state.get_tasks(task_ids=[spec.task_id])
        return task


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    factory = NodeStateFactory(ObjectStoreFactory())
    app = create_app(state_factory=factory)
    socket = str(tmp_path / "runtime")
    config = uvicorn.Config(app, uds=socket, log_level="error", loop="asyncio", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    monkeypatch.setenv(SOCKET, socket)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert holds(lambda: server.started or not thread.is_alive())
    yield Node(factory.state(), tmp_path)
    server.should_exit = True
    thread.join()


def test_a_task_whose_process_ends_without_an_answer_has_failed_at_once(node):
    spec = node.claimed("exit 3")
    OneTaskExecutor().launch(spec)
    status = node.task(spec).status
    assert (status.sub_status, status.details) == (
        "failed",
        "The task failed: its process ended (code 3)",
    )


def test_a_task_that_is_over_stays_as_it_is(node):
    spec = node.claimed("sleep 1")
    assert node.state.activate_task(spec.task_id)
    assert node.state.finish_task(spec.task_id, "completed", "")
    OneTaskExecutor().launch(spec)
    assert node.task(spec).status.sub_status == "completed"


def test_a_process_that_can_not_be_started_fails_its_task(node):
    spec = node.claimed("")
    (node.folder / "flwr-clientapp").unlink()
    OneTaskExecutor().launch(spec)
    assert "its process can't be started" in node.task(spec).status.details


def test_heartbeats_are_sent_until_a_process_is_able_to_send_them(node):
    (node.folder / "task.py").write_text(
        "import os, pathlib, time\n"
        f"time.sleep(2); os.close(int(os.environ['{STARTING}'])); time.sleep(2)\n"
        f"pathlib.Path('{node.folder}/ended').touch()\n"
    )
    spec = node.claimed(f"exec {sys.executable} {node.folder}/task.py")
    record = node.state.task_token_store[spec.task_id]
    first = record.active_until
    seen: list[float] = []

    def watch() -> None:
        while not (node.folder / "ended").exists() and len(seen) < 9000:
            seen.append((record.active_until - first).total_seconds())
            time.sleep(0.1)

    watching = threading.Thread(target=watch)
    watching.start()
    OneTaskExecutor(TaskLimits(beat_s=0.2)).launch(spec)
    watching.join()
    assert max(seen) > 30
    # The last of them came when the process was able to begin.
    last = seen.index(max(seen))
    assert len(seen) - last > 10


def test_a_process_that_never_begins_is_ended_and_its_task_has_failed(node):
    spec = node.claimed(f"echo $$ > {node.folder}/pid; exec sleep 3600")
    OneTaskExecutor(TaskLimits(begin_s=1.0)).launch(spec)
    assert "not able to begin within 1 s" in node.task(spec).status.details
    assert not Path(f"/proc/{(node.folder / 'pid').read_text().strip()}").exists()


def test_a_process_that_does_not_end_with_its_task_is_killed(node):
    spec = node.claimed(f"trap '' TERM; echo $$ > {node.folder}/pid; while :; do sleep 0.2; done")
    assert node.state.activate_task(spec.task_id)
    assert node.state.finish_task(spec.task_id, "completed", "")
    OneTaskExecutor(TaskLimits(beat_s=0.1, ending_s=0.5, grace_s=0.5)).launch(spec)
    assert not Path(f"/proc/{(node.folder / 'pid').read_text().strip()}").exists()
