"""The compute backend on an engine: retraining, the gate, and candidates for many sites at once.

Jobs get paths and names, not arrays: they read zoo and releases themselves, so no process holds
anything that exists nowhere else. The engine repeats a job whose process was lost; a cluster that
is lost as a whole interrupts the round, which goes on when it is started again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from f2l_fed.local_training.selection import CandidateSet
from server.cluster.engine import Engine
from server.cluster.tasks import candidates_here, objections_here, retrain_here
from server.federation.folder import Federation
from server.federation.release import Release

_SITES_PER_TASK = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineBackend:
    """The compute backend on a running engine, for one federation.

    Args:
        root: The federation's folder, on storage that all nodes of a cluster share.
        engine: Runs the jobs.
    """

    root: Path
    engine: Engine

    def retrain(self, id: str, commit: int) -> Release:
        """Fits a candidate release on a snapshot of the zoo; see `server.generator.retrain`."""
        config = self.engine.config
        if config.jobs:
            # Ray takes a second and a half to import.
            from server.cluster.jobs import retrain_as_job

            retrain_as_job(config, self.root, id, commit)
            return Federation.open(self.root).releases.read(id)
        # Ray Train's workers book the GPUs of the flow themselves.
        job = (retrain_here, self.root, id, commit, config)
        release: Release = self.engine.run(*job, on_gpu=not config.train_workers)
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
        config = self.engine.config
        streams: deque[Generator[tuple[str, CandidateSet], None, Any]] = deque()
        try:
            for chunk in chunks:
                if len(streams) == config.generators:
                    yield from streams.popleft()
                # Sites that were erased meanwhile are left out.
                known = {s: context for s in chunk if (context := probes.get(s)) is not None}
                if not known:
                    continue
                contexts = stacked(list(known.values()))
                job = (candidates_here, self.root, release, list(known), contexts, config)
                streams.append(self.engine.stream(*job, on_gpu=True))
            while streams:
                yield from streams.popleft()
        finally:
            # An exchange may end before it has come to these.
            for stream in streams:
                stream.close()

    def objections(self, id: str) -> tuple[str, ...]:
        """The objections to a candidate release; see `server.generator.gate`."""
        found: tuple[str, ...]
        found = self.engine.run(objections_here, self.root, id, self.engine.config)
        return found


def stacked(contexts: Sequence[Tensor]) -> Tensor:
    """(n, E, D) from the contexts of n sites, E being the fewest that one of them has.

    A site's update may bring more of them than a request for contexts alone.
    """
    fewest = min(len(own) for own in contexts)
    return torch.stack([own[:fewest] for own in contexts])
