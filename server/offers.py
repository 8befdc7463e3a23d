"""The starts that sites are offered in a round, made from one release for a few sites at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from f2l_fed.candidates import Offer, Records, for_training
from f2l_fed.generator import Generator
from f2l_fed.seeds import generator_for
from server.federation import Federation
from server.releases import Release
from server.retrain import release_records


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """A release, opened once for many sites.

    Args:
        federation: The folder.
        release: What is known of it.
        generator: Its generator.
        records: What it was fitted on.
        expected: (n, E, D) float32, what is expected of each record without those of its site.
    """

    federation: Federation
    release: Release
    generator: Generator
    records: Records
    expected: Tensor

    @classmethod
    def open(cls, federation: Federation, id: str) -> Workshop:
        """Raises ReleaseError if there is no such release or it is damaged."""
        release = federation.releases.read(id)
        return cls(
            federation=federation,
            release=release,
            generator=federation.releases.generator(id),
            records=release_records(federation, release),
            expected=federation.releases.expected(id),
        )

    def offers(self, sites: Sequence[str], probes: Tensor) -> Iterator[tuple[str, Offer]]:
        """Candidates by kind for every episode of some sites.

        Args:
            sites: Names.
            probes: (len(sites), E, D) float32, their contexts.

        Yields:
            A site and its candidates, as they are made.
        """
        expected = self.generator.expect(probes.flatten(0, 1)).view_as(probes)
        known = {site: row for row, site in enumerate(self.release.sites)}
        config = self.federation.config
        for index, site in enumerate(sites):
            others: Any = self.records
            own = expected[index]
            if site in known:
                # A known site gets what a new site would get: its own record would only be
                # repeated to it, and the next retraining would learn nothing from the answer.
                others = _Others(self.records, known[site], self.expected.shape[1])
                own = self.expected[known[site]]
            rng = generator_for(config.lineage, self.release.id, site, "candidates")
            made = [
                for_training(self.generator, others, probe, start, config.candidates, rng)
                for probe, start in zip(probes[index], own, strict=True)
            ]
            # Of a view, the whole matrix behind it would be sent: all records with every site.
            yield site, tuple({kind: w.clone() for kind, w in starts.items()} for starts in made)


@dataclass(frozen=True, slots=True)
class _Others:
    """Records without those of one site, which are not copied for it."""

    records: Records
    row: int
    episodes: int

    def nearest(self, context: Tensor, count: int) -> Tensor:
        """See `f2l_fed.candidates.Records.nearest`."""
        distances = (self.records.contexts - context).square().sum(1)
        distances[self.row * self.episodes : (self.row + 1) * self.episodes] = torch.inf
        few = min(count, len(distances) - self.episodes)
        return self.records.weights[distances.topk(few, largest=False).indices]


def candidates_for(
    federation: Federation, id: str, sites: Sequence[str], probes: Tensor
) -> dict[str, Offer]:
    """`Workshop.offers` of a release that is opened for this alone."""
    return dict(Workshop.open(federation, id).offers(sites, probes))
