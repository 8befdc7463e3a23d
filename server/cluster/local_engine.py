"""The engine on this machine: jobs in processes that are forked when they are needed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from f2l_fed.config import RayConfig
from f2l_fed.errors import RoundError
from server.cluster.fork_server import FORK_SERVER
from server.cluster.worker_process import LostProcess, WorkerProcess
from server.rounds.state import Interrupted

_TRIES = 4
_LOOK_S = 0.2


class LocalEngine:
    """The engine on this machine; see `server.cluster.engine.Engine`.

    Processes are kept for the next job, which finds a release open that the last one has read. All
    of them see the machine's GPUs.

    Args:
        config: Says how many processes may work at a time.
    """

    def __init__(self, config: RayConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._idle: list[WorkerProcess] = []
        self._busy: set[WorkerProcess] = set()
        self._closed = False

    @property
    def config(self) -> RayConfig:
        """The settings."""
        return self._config

    @property
    def workers(self) -> int:
        """Number of CPUs, or as many as the settings allow."""
        return cpus(self._config)

    def run(self, job: Callable[..., Any], *arguments: Any, on_gpu: bool = False) -> Any:  # noqa: ARG002
        """Runs one job."""
        outcome = self._begun_outcome(job, arguments)
        while True:
            try:
                next(outcome)
            except StopIteration as end:
                return end.value

    def stream(
        self,
        job: Callable[..., Iterator[Any]],
        *arguments: Any,
        on_gpu: bool = False,  # noqa: ARG002
    ) -> Generator[Any, None, Any]:
        """Begins one job, which stays one item ahead, and yields what it yields."""
        return self._begun_outcome(job, arguments)

    def gather(
        self,
        job: Callable[..., Any],
        *common: Any,
        each: Sequence[Any],
        stop: threading.Event,
    ) -> list[Any]:
        """Runs several jobs, `workers` at a time; the engine is closed if they are stopped."""
        with ThreadPoolExecutor(self.workers) as threads:
            pending = [threads.submit(self.run, job, *common, one) for one in each]
            while wait(pending, timeout=_LOOK_S).not_done:
                if stop.is_set():
                    self.close()
                    raise RoundError("stopped")
            return [one.result() for one in pending]

    def close(self) -> None:
        """Ends all processes."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            for process in self._busy:
                process.end()
        for process in idle:
            process.close()

    def _begun(self, job: Callable[..., Any], arguments: Sequence[Any]) -> WorkerProcess:
        with self._lock:
            if self._closed:
                raise Interrupted("stopped", remedy="Start it again; it goes on where it was.")
            process = self._idle.pop() if self._idle else WorkerProcess()
            self._busy.add(process)
        process.begin(job, *arguments)
        return process

    def _begun_outcome(
        self, job: Callable[..., Any], arguments: Sequence[Any]
    ) -> Generator[Any, None, Any]:
        """The outcome of a job that begins now: yields what it yields, returns what it returns."""
        outcome = self._outcome(job, arguments)
        next(outcome)
        return outcome

    def _outcome(
        self, job: Callable[..., Any], arguments: Sequence[Any]
    ) -> Generator[Any, None, Any]:
        """The outcome of a job; first it yields None, when the job has begun."""
        yielded, whole, lost = 0, False, 0
        while True:
            process = self._begun(job, arguments)
            try:
                if not lost:
                    # A generator that is dropped comes to its end only if it has come to a yield.
                    yield None
                for number, (kind, value) in enumerate(process.answers()):
                    whole = kind != "yielded"
                    if kind == "raised":
                        raise value
                    if kind == "returned":
                        return value
                    if number == yielded:
                        yielded += 1
                        yield value
            except LostProcess:
                lost += 1
                if lost == _TRIES:
                    raise Interrupted(
                        "the machine lost a task",
                        got="a process that was killed, as where memory is short",
                        remedy="Give it more memory or lower ray.memory_mb, then go on with the "
                        "round; what sites have sent is in the zoo.",
                    ) from None
            finally:
                self._release(process, whole)

    def _release(self, process: WorkerProcess, whole: bool) -> None:
        with self._lock:
            self._busy.discard(process)
            if whole and not self._closed:
                self._idle.append(process)
                return
        process.close()


def started_locally(config: RayConfig) -> LocalEngine:
    """The engine on this machine; what its processes need is imported from now on.

    Raises:
        ConfigError: If no token is known for the server of retrainings as jobs.
    """
    if config.jobs:
        # Imports grpc.
        from server.cluster.authentication import cluster_token

        cluster_token(config)
    FORK_SERVER.start()
    return LocalEngine(config)


def cpus(config: RayConfig) -> int:
    """Number of processes that may work at a time."""
    if config.cpus or not hasattr(os, "sched_getaffinity"):
        return config.cpus or os.cpu_count() or 1
    return len(os.sched_getaffinity(0))
