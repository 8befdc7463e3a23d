"""The engine on Ray: jobs as its tasks, and the errors of tasks as typed ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from f2l_fed.config import RayConfig
from f2l_fed.errors import F2LError, RoundError
from server.cluster import connection
from server.cluster.gpu_share import gpu_share
from server.rounds.state import Interrupted

_RETRIES = 3
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class RayEngine:
    """The engine on the Ray that this process is connected to; see `server.cluster.engine.Engine`.

    Args:
        config: Says how many CPUs a task reserves.
    """

    config: RayConfig

    @property
    def workers(self) -> int:
        """Number of CPUs of the cluster."""
        return max(1, int(ray.cluster_resources().get("CPU", 1)))

    def run(self, job: Callable[..., Any], *arguments: Any, on_gpu: bool = False) -> Any:
        """Runs one job as a task."""
        with typed_errors():
            return ray.get(self.task(job, on_gpu).remote(*arguments))

    def stream(
        self, job: Callable[..., Iterator[Any]], *arguments: Any, on_gpu: bool = False
    ) -> Generator[Any, None, None]:
        """Begins one task, and yields what it yields."""
        return _each(self.task(job, on_gpu, num_returns="streaming").remote(*arguments))

    def gather(
        self,
        job: Callable[..., Any],
        *common: Any,
        each: Sequence[Any],
        stop: threading.Event,
    ) -> list[Any]:
        """Runs several tasks; what they have in common is put into Ray's store once."""
        task, known = self.task(job), [ray.put(one) for one in common]
        pending = [task.remote(*known, one) for one in each]
        while ray.wait(pending, num_returns=len(pending), timeout=_LOOK_S)[1]:
            if stop.is_set():
                raise RoundError("stopped")
        with typed_errors():
            found: list[Any] = ray.get(pending)
        return found

    def close(self) -> None:
        """Ends the connection to Ray."""
        connection.disconnect()

    def task(self, job: Callable[..., Any], on_gpu: bool = False, **options: Any) -> Any:
        """A job as a task that is repeated where its process is lost, with Ray's own options."""
        # Tasks and not actors: they find processes that have imported everything before.
        cpus, gpus = self.config.task_cpus, 0.0
        if on_gpu:
            gpus = gpu_share(self.config.device, ray.cluster_resources())
        return ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=_RETRIES, **options)(job)


def started_ray(config: RayConfig) -> RayEngine:
    """The engine on a Ray that is joined or started now; errors as `connection.connect`."""
    connection.connect(config)
    return RayEngine(config)


def _each(stream: Any) -> Generator[Any, None, None]:
    with typed_errors():
        for reference in stream:
            yield ray.get(reference)


@contextmanager
def typed_errors() -> Iterator[None]:
    """Turns an error of a task or of its worker into a typed error."""
    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, F2LError):
            raise error.cause from None
        if isinstance(error.cause, OSError):
            raise error.cause from error
        if isinstance(error.cause, RayError):
            raise _lost_task(error.cause) from error
        raise RoundError(
            "a task failed on the cluster", got=f"{type(error.cause).__name__}: {error.cause}"
        ) from error
    except RayError as error:
        raise _lost_task(error) from error


def _lost_task(error: RayError) -> Interrupted:
    return Interrupted(
        "the cluster lost a task",
        got=type(error).__name__,
        remedy="Go on with the round; what sites have sent is in the zoo.",
    )
