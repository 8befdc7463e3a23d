"""The compute backend on Ray: retraining, the gate, and candidates for many sites at once.

Tasks get paths and names, not arrays: they read zoo and releases themselves, so the object store
never holds anything that exists nowhere else. Ray repeats a task whose process was lost; a cluster
that is lost as a whole interrupts the round, which goes on when it is started again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from torch import Tensor

from f2l_fed.config import RayConfig
from f2l_fed.local_training.selection import CandidateSet
from server.cluster.gpu_share import gpu_share
from server.cluster.jobs import retrain_as_job
from server.cluster.tasks import candidates_here, objections_here, retrain_here, typed_errors
from server.federation.folder import Federation
from server.federation.release import Release

_SITES_PER_TASK = 16
_RETRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RayBackend:
    """The compute backend on a connected Ray, for one federation.

    Args:
        root: The federation's folder, on storage that all nodes of the cluster share.
        config: Threads and CPUs of a task.
    """

    root: Path
    config: RayConfig

    def retrain(self, id: str, commit: int) -> Release:
        """Fits a candidate release on a snapshot of the zoo; see `server.generator.retrain`."""
        if self.config.jobs:
            retrain_as_job(self.config, self.root, id, commit)
            return Federation.open(self.root).releases.read(id)
        # Ray Train's workers book the GPUs of the flow themselves.
        gpus = 0.0 if self.config.train_workers else self._gpus
        release: Release = self._run(retrain_here, id, commit, gpus=gpus)
        return release

    def candidates(
        self, release: str, probes: Mapping[str, Tensor]
    ) -> Iterator[tuple[str, CandidateSet]]:
        """Makes candidates for sites; see `server.rounds.backend.Backend`.

        Sites are taken in chunks, `RayConfig.generators` at a time and each by one process, which
        keeps the release open for the next chunk. The candidates of a site are used while those of
        later sites are made.

        Args:
            release: Id of the release that makes them.
            probes: (E, D) float32, contexts of each site; looked up when they are needed.

        Yields:
            Site and, for each of its E episodes, its candidates by kind.
        """
        sites = list(probes)
        chunks = [sites[i : i + _SITES_PER_TASK] for i in range(0, len(sites), _SITES_PER_TASK)]
        # Tasks and not actors: they find processes that have imported everything in rounds before.
        task: Any = ray.remote(
            num_cpus=self.config.task_cpus,
            num_gpus=self._gpus,
            max_retries=_RETRIES,
            num_returns="streaming",
        )(candidates_here)
        streams: deque[Any] = deque()
        for chunk in chunks:
            if len(streams) == self.config.generators:
                yield from _each(streams.popleft())
            # Sites that were erased meanwhile are left out.
            known = {site: context for site in chunk if (context := probes.get(site)) is not None}
            if not known:
                continue
            contexts = stacked(list(known.values()))
            streams.append(task.remote(self.root, release, list(known), contexts, self.config))
        while streams:
            yield from _each(streams.popleft())

    def objections(self, id: str) -> tuple[str, ...]:
        """The objections to a candidate release; see `server.generator.gate`."""
        found: tuple[str, ...] = self._run(objections_here, id)
        return found

    @property
    def _gpus(self) -> float:
        return gpu_share(self.config.device, ray.cluster_resources())

    def _run(self, job: Callable[..., Any], *arguments: Any, gpus: float = 0.0) -> Any:
        """Runs a job as one task; the folder is its first argument, the settings are its last."""
        cpus = self.config.task_cpus
        task: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=_RETRIES)(job)
        with typed_errors():
            return ray.get(task.remote(self.root, *arguments, self.config))


def stacked(contexts: Sequence[Tensor]) -> Tensor:
    """(n, E, D) from the contexts of n sites, E being the fewest that one of them has.

    A site's update may bring more of them than a request for contexts alone.
    """
    fewest = min(len(own) for own in contexts)
    return torch.stack([own[:fewest] for own in contexts])


def _each(stream: Any) -> Iterator[tuple[str, CandidateSet]]:
    with typed_errors():
        for reference in stream:
            yield ray.get(reference)
