"""Parts of the records of a retraining as tasks of the cluster.

Tasks get the names of files in a folder that all nodes share, and give back sums, so nothing as
large as the records goes through Ray. A part is the same wherever it is computed, and sums are
added in its order, so that a cluster fits to the bit what one process would.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
import torch

from f2l_fed.config import RayConfig
from f2l_fed.core.private_files import private_files
from f2l_fed.matrices.workspace import packed
from server.cluster.ray_engine import RayEngine, typed_errors

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartTasks:
    """`f2l_fed.matrices.blocks.EachPart` on a connected Ray.

    Args:
        config: Tasks at a time, and threads and CPUs of each.
    """

    config: RayConfig

    def __call__(self, job: Callable[..., T], some: Sequence[slice], *given: Any) -> Iterator[T]:
        """See `EachPart`; a task whose process is lost is repeated.

        Raises:
            Interrupted: If it was lost too often.
            RoundError: If the job failed, or its node does not see the folder.
        """
        task = RayEngine(self.config).task(_run, scheduling_strategy="SPREAD")
        shared = ray.put(packed((job, given)))
        running: deque[Any] = deque()
        for part in some:
            if len(running) == self.config.part_workers:
                yield _result(running.popleft())
            running.append(task.remote(shared, part, self.config.threads))
        while running:
            yield _result(running.popleft())


def _result(task: Any) -> Any:
    with typed_errors():
        return ray.get(task)


def _run(shared: bytes, part: slice, threads: int) -> Any:
    torch.set_num_threads(threads)
    job, given = pickle.loads(shared)
    with private_files():
        return job(part, *given)
