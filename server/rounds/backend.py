"""TODO."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from torch import Tensor

from f2l_fed.local_training.selection import CandidateSet
from server.federation.release import Release


class Backend(Protocol):
    """Whoever does the heavy work; see `server.cluster.backend.RayBackend`.

    All raise RoundError for what can't be done, and Interrupted for what can be done later.
    """

    def retrain(self, id: str, commit: int) -> Release:
        """Fits a candidate release on a snapshot."""

    def plan(
        self, release: str, probes: Mapping[str, Tensor]
    ) -> Iterator[tuple[str, CandidateSet]]:
        """Candidates by kind for every episode of each site; probes are (E, D) float32 by site."""

    def objections(self, id: str) -> tuple[str, ...]:
        """What speaks against a candidate release; see `server.generator.gate`."""
