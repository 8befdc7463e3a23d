"""The candidates of a round, made from one release for a few sites at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from f2l_fed.core.random_streams import generator_for
from f2l_fed.generator.candidates import (
    FittedRecords,
    around_shared,
    candidates_for_training,
    candidates_of_site,
    head_of_site,
)
from f2l_fed.generator.generator import Generator
from f2l_fed.local_training.candidate_kinds import PRIOR
from f2l_fed.local_training.selection import CandidateSet
from server.federation.folder import Federation
from server.generator.release_records import release_records, rows_left, while_erasing


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateFactory:
    """A release that is open to make candidates for many sites.

    Args:
        federation: The folder.
        id: Of the release.
        generator: Its generator.
        sites: Sites that it was fitted on and that were not erased since.
        records: The records of these sites; None where the nearest one is no candidate.
        expected: (n, E, D) float32, predictions for these records without those of the same site.
        erased: `Zoo.erasures` before the records were read.
    """

    federation: Federation
    id: str
    generator: Generator
    sites: tuple[str, ...]
    records: FittedRecords | None
    expected: Tensor
    erased: Mapping[str, int]

    @classmethod
    def open(cls, federation: Federation, id: str) -> CandidateFactory:
        """Opens a release.

        Raises:
            ReleaseError: If there is no such release or it is damaged.
        """
        return while_erasing(federation, lambda: cls._opened(federation, id))

    @classmethod
    def _opened(cls, federation: Federation, id: str) -> CandidateFactory:
        release, erased = federation.releases.read(id), federation.zoo.erasures()
        rows, nearest = rows_left(federation, release), federation.config.candidates.nearest
        return cls(
            federation=federation,
            id=id,
            generator=federation.releases.generator(id),
            sites=tuple(release.sites[row] for row in rows),
            records=release_records(federation, release, rows) if nearest else None,
            expected=federation.releases.expected(id)[rows],
            erased=erased,
        )

    def is_current(self) -> bool:
        """Whether no site was erased since it was opened."""
        return self.federation.zoo.erasures() == self.erased

    def candidates(
        self, sites: Sequence[str], probes: Tensor
    ) -> Iterator[tuple[str, CandidateSet]]:
        """Makes the candidates by kind for every episode of some sites.

        Args:
            sites: Names.
            probes: (len(sites), E, D) float32, their contexts.

        Yields:
            A site and its candidates, as they are made.
        """
        expected = self.generator.expect(probes.flatten(0, 1)).view_as(probes)
        config = self.federation.config
        for index, site in enumerate(sites):
            if self.federation.body is not None:
                largest = self.federation.target.layout
                head = head_of_site(probes[index, 0], expected[index, 0], largest)
                yield site, ({PRIOR: head},)
                continue
            own, others = self._without(site, expected[index])
            if config.has_shared_network:
                yield site, (around_shared(self.generator, own[0]),)
                continue
            rng = generator_for(config.lineage, self.id, site, "candidates")
            made = [
                candidates_for_training(
                    self.generator, others, probe, start, config.candidates, rng
                )
                for probe, start in zip(probes[index], own, strict=True)
            ]
            # Of a view, the whole matrix behind it would be sent: all records with every site.
            yield site, tuple({kind: w.clone() for kind, w in starts.items()} for starts in made)

    def served(self, site: str, context: Tensor) -> dict[str, Tensor]:
        """The candidates by kind of one site outside of rounds, as held-out sites are measured.

        Args:
            site: Its name.
            context: (D,) float32.
        """
        federation, expected, others = self.federation, self.generator.expect(context[None]), None
        if federation.body is None:
            expected, others = self._without(site, expected)
        parts = candidates_of_site(
            self.generator,
            federation.service_frame,
            site,
            context,
            expected[0],
            federation.config.candidates,
            federation.target.layout,
            records=others,
        )
        return {kind: weights for part in parts for kind, weights in part.items()}

    def _without(self, site: str, expected: Tensor) -> tuple[Tensor, Any]:
        """The predictions for a site, and the records of all others.

        A known site gets what a new site would get: its own record would only be repeated to it,
        and the next retraining would learn nothing from its update.

        Args:
            site: Its name.
            expected: (e, D) float32, the predictions for its contexts.
        """
        if site not in self.sites:
            return expected, self.records
        row, others = self.sites.index(site), None
        if self.records is not None:
            others = _RecordsWithout(self.records, row, self.expected.shape[1])
        return self.expected[row][: len(expected)], others


@dataclass(frozen=True, slots=True)
class _RecordsWithout:
    """Records without those of one site; the others are not copied."""

    records: FittedRecords
    row: int
    episodes: int

    def nearest(self, context: Tensor, count: int) -> Tensor:
        """See `f2l_fed.generator.candidates.FittedRecords.nearest`."""
        distances = (self.records.contexts - context).square().sum(1)
        distances[self.row * self.episodes : (self.row + 1) * self.episodes] = torch.inf
        few = min(count, len(distances) - self.episodes)
        return self.records.weights[distances.topk(few, largest=False).indices]


def candidates_for(
    federation: Federation, id: str, sites: Sequence[str], probes: Tensor
) -> dict[str, CandidateSet]:
    """Makes candidate sets for (n, E, D) float32 probes with a release opened for this call."""
    return dict(CandidateFactory.open(federation, id).candidates(sites, probes))
