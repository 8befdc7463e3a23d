"""The ``flower-superexec`` of server and sites: one process for each task, one task at a time.

Flower gives each task process a token that stands for the whole task, as an argument that every
user of the machine can read in ``/proc``. Here it is handed over in memory, through an open file
that only the new process inherits.

Flower hands a task to yet another process unless the first one sends a heartbeat in 30 seconds. On
a busy machine its imports take longer: each process slows the others, and none ever answers. Here
the heartbeats come from this process until the new one is able to send them; a task whose process
ends, or never begins, has failed; and the next task waits until then.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from logging import WARNING
from pathlib import Path
from typing import Any, Protocol

import httpx
from flwr.common.constant import SUPERLINK_NODE_ID, SubStatus
from flwr.proto.message_pb2 import PullObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PushTaskOutputRequest, SendTaskHeartbeatRequest
from flwr.supercore import log
from flwr.supercore.cli.flower_superexec import flower_superexec
from flwr.supercore.constant import TASK_TYPE_TO_APPIO_API_ADDRESS_ARG, TASK_TYPE_TO_COMMAND
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
)
from flwr.supercore.superexec import run_superexec
from flwr.supercore.superexec.executor import ExecutionSpec, LaunchResult, SubprocessExecutor

from f2l_fed.flower.inner_access import STARTING
from f2l_fed.flower.runtime_client import InnerRuntimeClient, use_inner_client

_EXECUTOR = "get_executor"
_TOKEN = "--token"
_TICK_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLimits:
    """The limits on the process of a task.

    Args:
        begin_s: Longest time from its start until it is able to begin.
        ending_s: Longest time that it goes on after the end of its task, of which it learns within
            25 seconds.
        grace_s: Time from asking it to end until it is killed.
        beat_s: Time between two heartbeats, or two questions whether the task has ended.
    """

    begin_s: float = 600.0
    ending_s: float = 60.0
    grace_s: float = 10.0
    beat_s: float = 5.0


class TaskProcess(Protocol):
    """The process of a task, as ``subprocess.Popen`` has it."""

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code once it has ended; raises ``subprocess.TimeoutExpired`` before."""

    def terminate(self) -> None:
        """Asks it to end."""

    def kill(self) -> None:
        """Ends it."""


@contextmanager
def token_file(token: str) -> Iterator[int]:
    """An open file in memory with a token, for a process that inherits it."""
    descriptor = os.memfd_create("token", 0)
    try:
        os.write(descriptor, token.encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def start(
    arguments: Sequence[str], *, pass_fds: Sequence[int] = (), **settings: Any
) -> subprocess.Popen[bytes]:
    """Starts a process as ``subprocess.Popen`` does, with its token in an inherited file.

    Args:
        arguments: The command line; a ``--token`` and what follows it are replaced.
        pass_fds: Further open files that it inherits.
        settings: Further arguments of ``Popen``.
    """
    command = list(arguments)
    if _TOKEN not in command:
        return subprocess.Popen(command, pass_fds=pass_fds, **settings)
    at = command.index(_TOKEN)
    with token_file(command[at + 1]) as descriptor:
        command[at : at + 2] = ["--token-file", f"/proc/self/fd/{descriptor}"]
        return subprocess.Popen(command, pass_fds=(descriptor, *pass_fds), **settings)


class OneTaskExecutor(SubprocessExecutor):
    """Flower's executor of local processes, which stays with each until its end.

    Args:
        limits: The limits on each process.
    """

    def __init__(self, limits: TaskLimits | None = None) -> None:
        self._limits = limits or TaskLimits()

    def launch(self, spec: ExecutionSpec) -> LaunchResult:
        """Runs the process of a task; a task that is not over when it has ended has failed.

        Args:
            spec: The task.
        """
        with closing(_client(spec)) as client:
            reason = self._run(spec, client)
            if reason and _ended_here(client, reason):
                log(WARNING, "The task %d failed: %s", spec.task_id, reason)
        return LaunchResult.accepted()

    def start_process(self, spec: ExecutionSpec, starting: int) -> TaskProcess:
        """Starts the process of a task.

        Args:
            spec: The task.
            starting: An open file that it inherits, and closes once it is able to begin.

        Raises:
            OSError: If it can't be started.
        """
        output = subprocess.DEVNULL if spec.suppress_output else None
        return start(
            [*command_of(spec), _TOKEN, spec.token],
            pass_fds=(starting,),
            env={**os.environ, STARTING: str(starting)},
            stdout=output,
            stderr=output,
        )

    def _run(self, spec: ExecutionSpec, client: InnerRuntimeClient) -> str:
        """Runs the process; returns "" if it has ended well, and the cause of another end."""
        begun, starting = os.pipe()
        try:
            process = self.start_process(spec, starting)
        except OSError as error:
            os.close(begun)
            return f"its process can't be started ({error})"
        finally:
            os.close(starting)
        try:
            problem = self._accompany(process, begun, client)
        finally:
            os.close(begun)
        if problem:
            _end(process, self._limits.grace_s)
        code = process.wait()
        if problem or not code:
            return problem
        return f"its process ended ({f'signal {-code}' if code < 0 else f'code {code}'})"

    def _accompany(self, process: TaskProcess, begun: int, client: InnerRuntimeClient) -> str:
        """Stays with a process; returns "" once it has ended, or the reason to end it.

        Args:
            process: The process.
            begun: Can be read from as soon as the process is able to begin.
            client: Speaks for the task.
        """
        limits, since, due, over = self._limits, time.monotonic(), 0.0, None
        able = False
        while process.poll() is None:
            now = time.monotonic()
            able = able or bool(select.select([begun], [], [], 0)[0])
            if now >= due:
                due = now + limits.beat_s
                if not _goes_on(client, beat=not able):
                    over = over or now
            if not able and now - since > limits.begin_s:
                return f"its process was not able to begin within {limits.begin_s:g} s"
            if over and now - over > limits.ending_s:
                return "its process did not end with it"
            # Short: a signal for this process that comes in another thread waits for it.
            time.sleep(_TICK_S)
        return ""


def command_of(spec: ExecutionSpec) -> list[str]:
    """The command line of a task's process, as Flower writes it but for the token."""
    command = [TASK_TYPE_TO_COMMAND[spec.task_type]]
    command += [TASK_TYPE_TO_APPIO_API_ADDRESS_ARG[spec.task_type], spec.runtime_api_address]
    if spec.insecure:
        command.append("--insecure")
    elif spec.root_certificates_path is not None:
        command += ["--root-certificates", spec.root_certificates_path]
    if spec.parent_pid is not None:
        command += ["--parent-pid", str(spec.parent_pid)]
    return command


def _client(spec: ExecutionSpec) -> InnerRuntimeClient:
    """A client that speaks for a task."""
    path = spec.root_certificates_path
    return InnerRuntimeClient.from_server_address(
        spec.runtime_api_address,
        insecure=spec.insecure,
        root_certificates=Path(path).read_bytes() if path and not spec.insecure else None,
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperExec"),
            RuntimeTokenHttpInterceptor(spec.token),
        ],
    )


def _goes_on(client: InnerRuntimeClient, *, beat: bool) -> bool:
    """Whether a task has not ended; sends a heartbeat, or only asks."""
    try:
        if beat:
            return bool(client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success)
        client.PullObject(PullObjectRequest(node=Node(node_id=SUPERLINK_NODE_ID), object_id="-"))
    except httpx.HTTPStatusError as error:
        return error.response.status_code != httpx.codes.UNAUTHORIZED
    except httpx.HTTPError:
        pass
    return True


def _ended_here(client: InnerRuntimeClient, reason: str) -> bool:
    """Ends a task as failed, and returns whether it had not ended before."""
    with suppress(httpx.HTTPError):
        client.PushTaskOutput(
            PushTaskOutputRequest(sub_status=SubStatus.FAILED, details=f"The task failed: {reason}")
        )
        return True
    return False


def _end(process: TaskProcess, grace_s: float) -> None:
    process.terminate()
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        process.kill()


def main(executor: Callable[[], OneTaskExecutor] = OneTaskExecutor) -> None:
    """Runs ``flower-superexec`` with the arguments of the command line.

    Args:
        executor: Makes what starts the tasks.
    """
    try:
        getattr(run_superexec, _EXECUTOR)
        use_inner_client(run_superexec)
    except AttributeError as error:
        sys.exit(f"unknown version of Flower: it starts tasks in another way ({error})")
    setattr(run_superexec, _EXECUTOR, lambda *_, **__: executor())
    flower_superexec()


if __name__ == "__main__":
    main()
