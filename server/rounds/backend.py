"""The interface between rounds and the machines that do the heavy work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from torch import Tensor

from f2l_fed.local_training.selection import CandidateSet
from server.federation.release import Release


class Backend(Protocol):
    """The compute backend: retrains, makes candidates, judges releases.

    `server.cluster.backend.EngineBackend` is one. All methods raise RoundError if the work can't be
    done, and Interrupted if it can be done later.
    """

    def retrain(self, id: str, commit: int) -> Release:
        """Fits a candidate release on a snapshot of the zoo.

        Args:
            id: Id of the new release.
            commit: The snapshot.
        """

    def candidates(
        self, release: str, probes: Mapping[str, Tensor]
    ) -> Iterator[tuple[str, CandidateSet]]:
        """Makes candidates for sites.

        Args:
            release: Id of the release that makes them.
            probes: (E, D) float32, contexts of each site.

        Yields:
            Site and, for each of its E episodes, its candidates by kind.
        """

    def objections(self, id: str) -> tuple[str, ...]:
        """The objections to a candidate release, a sentence each; see `server.generator.gate`."""
