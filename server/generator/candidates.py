"""The candidates of a round, made from one release for a few sites at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.core.placement import CPU, moved
from f2l_fed.core.random_streams import generator_for
from f2l_fed.generator.candidates import (
    around_shared,
    candidates_for_training,
    candidates_of_site,
    head_of_site,
)
from f2l_fed.generator.generator import Generator
from f2l_fed.generator.nearest_records import NearestRecords
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
        maker: The same on the device that draws networks.
        sites: Sites that it was fitted on and that were not erased since.
        nearest: The records of these sites; None where the nearest one is no candidate.
        expected: (n, E, D) float32, predictions for these records without those of the same site.
        erased: `Zoo.erasures` before the records were read.
    """

    federation: Federation
    id: str
    generator: Generator
    maker: Generator
    sites: tuple[str, ...]
    nearest: NearestRecords | None
    expected: Tensor
    erased: Mapping[str, int]

    @classmethod
    def open(cls, federation: Federation, id: str, device: torch.device = CPU) -> CandidateFactory:
        """Opens a release.

        Args:
            federation: The folder.
            id: Of the release.
            device: What draws networks.

        Raises:
            ReleaseError: If there is no such release or it is damaged.
        """
        return while_erasing(federation, lambda: cls._opened(federation, id, device))

    @classmethod
    def _opened(cls, federation: Federation, id: str, device: torch.device) -> CandidateFactory:
        release, erased = federation.releases.read(id), federation.zoo.erasures()
        rows, config = rows_left(federation, release), federation.config
        # Heads and shared networks are no draws, but one small map of a context.
        if config.has_body or config.has_shared_network:
            device = CPU
        generator, records = federation.releases.generator(id), None
        if config.candidates.nearest:
            records = release_records(federation, release, rows)
        return cls(
            federation=federation,
            id=id,
            generator=generator,
            maker=generator.to(device),
            sites=tuple(release.sites[row] for row in rows),
            nearest=None if records is None else NearestRecords.of(records, device),
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
        config = self.federation.config
        rows = self._rows(sites)
        expected, near = self._expected(rows, probes), self._nearest(rows, probes)
        for index, site in enumerate(sites):
            if self.federation.body is not None:
                largest = self.federation.target.layout
                head = head_of_site(probes[index, 0], expected[index][0], largest)
                yield site, ({PRIOR: head},)
                continue
            if config.has_shared_network:
                yield site, (around_shared(self.generator, expected[index][0]),)
                continue
            rng = generator_for(config.lineage, self.id, site, "candidates")
            made = candidates_for_training(
                self.maker, near[index], expected[index], config.candidates, rng
            )
            # Of a view, the whole matrix behind it would be sent: all records with every site.
            yield site, tuple({kind: w.clone() for kind, w in starts.items()} for starts in made)

    def served(self, site: str, context: Tensor) -> dict[str, Tensor]:
        """The candidates by kind of one site outside of rounds, as held-out sites are measured.

        Args:
            site: Its name.
            context: (D,) float32.
        """
        federation, asked = self.federation, context[None, None]
        rows = self._rows([site])
        parts = candidates_of_site(
            self.maker,
            federation.service_frame,
            site,
            context,
            self._expected(rows, asked)[0][0],
            federation.config.candidates,
            federation.target.layout,
            nearest=self._nearest(rows, asked)[0][0],
        )
        return {kind: weights.cpu() for part in parts for kind, weights in part.items()}

    def _expected(self, rows: Sequence[int | None], probes: Tensor) -> list[Tensor]:
        """(E, D) float32 for each site, the predictions for its (E, D) probes.

        A known site gets what a new site would get, so its own record has no part in it: that would
        only be repeated to it, and the next retraining would learn nothing from its update. Heads
        are no starts, so they may be made with it.
        """
        made = self.maker.expect(moved(probes.flatten(0, 1), self.maker.device)).cpu()
        found = list(made.view_as(probes))
        if self.federation.body is None:
            for index, row in enumerate(rows):
                if row is not None:
                    found[index] = self.expected[row][: probes.shape[1]]
        return found

    def _nearest(self, rows: Sequence[int | None], probes: Tensor) -> list[list[Tensor | None]]:
        """(D,) float32 for each site and probe, the nearest record of another site, if any."""
        asked, kept = probes.shape[1], self.expected.shape[1]
        if self.nearest is None or self.federation.body is not None:
            return [[None] * asked for _ in rows]
        own = [range(0) if row is None else range(row * kept, (row + 1) * kept) for row in rows]
        each = [one for one in own for _ in range(asked)]
        found = self.nearest.weights_for(probes.flatten(0, 1), each)
        return [found[start : start + asked] for start in range(0, len(found), asked)]

    def _rows(self, sites: Sequence[str]) -> list[int | None]:
        """The row of each site in the release; None for those that it does not know."""
        known = {site: row for row, site in enumerate(self.sites)}
        return [known.get(site) for site in sites]


def candidates_for(
    federation: Federation, id: str, sites: Sequence[str], probes: Tensor
) -> dict[str, CandidateSet]:
    """Makes candidate sets for (n, E, D) float32 probes with a release opened for this call."""
    return dict(CandidateFactory.open(federation, id).candidates(sites, probes))
