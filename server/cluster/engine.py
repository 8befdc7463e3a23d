"""The engine of the heavy work: processes of this machine, or a Ray cluster."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from f2l_fed.config import RayConfig


class Engine(Protocol):
    """The engine: runs jobs, which are functions of a module, in other processes.

    A job whose process was lost is repeated. All methods raise the errors of a job that are typed
    or an OSError's, RoundError for any other, and Interrupted if its processes are lost repeatedly.
    """

    @property
    def config(self) -> RayConfig:
        """The settings that it has been started with."""

    @property
    def workers(self) -> int:
        """Number of jobs that are worth running at a time."""

    def run(self, job: Callable[..., Any], *arguments: Any, on_gpu: bool = False) -> Any:
        """Runs one job.

        Args:
            job: The function.
            arguments: Its arguments, which are copied.
            on_gpu: Whether it uses a GPU where the settings and the machine have one.

        Returns:
            The result of the function.
        """

    def stream(
        self, job: Callable[..., Iterator[Any]], *arguments: Any, on_gpu: bool = False
    ) -> Generator[Any, None, Any]:
        """Begins one job that yields, and yields the same while it goes on; closed, it is left."""

    def gather(
        self,
        job: Callable[..., Any],
        *common: Any,
        each: Sequence[Any],
        stop: threading.Event,
    ) -> list[Any]:
        """Runs several jobs side by side.

        Args:
            job: The function.
            common: Its first arguments.
            each: The last argument of each job.
            stop: Set from outside to stop them.

        Returns:
            Their results, in this order.

        Raises:
            RoundError: If they were stopped.
        """

    def close(self) -> None:
        """Ends all processes; jobs that run are lost, and no others begin."""


@contextmanager
def running_engine(config: RayConfig) -> Iterator[Engine]:
    """Starts the engine that the settings ask for, and ends it with all its processes.

    Raises:
        Interrupted: If no cluster can be joined or started.
        ConfigError: See `server.cluster.connection.connect`.
    """
    engine = _started(config)
    try:
        yield engine
    finally:
        engine.close()


def _started(config: RayConfig) -> Engine:
    # Ray alone takes a second and a half to import.
    if config.on_ray:
        from server.cluster.ray_engine import started_ray

        return started_ray(config)
    from server.cluster.local_engine import started_locally

    return started_locally(config)
