"""What admission remembers of the submissions that were admitted: one serialisable value.

Law: only what was admitted is in it, so poison that is kept out changes nothing; and what got in
has one vote a site (`f2l_fed.admission.robust_statistics`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from f2l_fed.admission.features import Features
from f2l_fed.admission.robust_statistics import SiteStatistics
from f2l_fed.admission.submission import SubmissionId


class Exclusion(NamedTuple):
    """Since which round a site's records are left out, and why."""

    round: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class History:
    """Votes of the sites, and signatures of their networks.

    Args:
        votes: Figures of the sites for each kind of round.
        owners: Whose each remembered network is, in the order in which they came.
        signatures: (n, S) float32, theirs.
        sources: Whose each remembered update is; a site's newest of each kind.
        directions: (u, 256) float32, theirs.
        doubted: Sites whose newest records are to be left out of retrainings.
        fresh: What has come since the last `review` as its site's newest of a kind.
    """

    votes: Mapping[str, SiteStatistics] = field(default_factory=dict)
    owners: tuple[SubmissionId, ...] = ()
    signatures: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    sources: tuple[SubmissionId, ...] = ()
    directions: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    doubted: Mapping[str, Exclusion] = field(default_factory=dict)
    fresh: frozenset[SubmissionId] = frozenset()

    def with_admitted(
        self, one: Features, extra: Mapping[str, Tensor] | None = None, *, votes: bool = True
    ) -> History:
        """The memory after a submission was admitted; the same one again replaces itself.

        A late one, of an earlier round than the site's newest, is remembered to tell copies; the
        newer one keeps its vote, and what was doubted of it stays so.

        Args:
            one: What was measured.
            extra: More figures by name, (m,) each.
            votes: Whether its figures count among what is usual.
        """
        origin = one.origin
        kept = [i for i, owner in enumerate(self.owners) if owner[:2] != origin[:2]]
        known = replace(
            self,
            owners=(*(self.owners[i] for i in kept), *[origin] * len(one.signatures)),
            signatures=_below(_of(self.signatures, kept), one.signatures),
        )
        if any(
            (source.site, source.kind) == (origin.site, origin.kind) and source.round > origin.round
            for source in self.sources
        ):
            return known
        of_kind = self.votes_on(origin.kind)
        of_kind = (
            of_kind.with_site(origin.site, {**one.values, **(extra or {})}, origin.parent)
            if votes
            else of_kind.without(origin.site)
        )
        other = [
            i
            for i, source in enumerate(self.sources)
            if (source.site, source.kind) != (origin.site, origin.kind)
        ]
        return replace(
            known,
            votes={**self.votes, origin.kind: of_kind},
            sources=(*(self.sources[i] for i in other), *[origin] * len(one.directions)),
            directions=_below(_of(self.directions, other), one.directions),
            fresh=self.fresh | {origin},
            doubted={
                site: why
                for site, why in self.doubted.items()
                if site != origin.site or why.round > origin.round
            },
        )

    def part(self, origin: SubmissionId) -> History:
        """What a submission that was just admitted has added, as a memory of its own."""
        of_kind = self.votes_on(origin.kind)
        votes = SiteStatistics()
        if origin.site in of_kind.sites:
            votes = votes.with_site(origin.site, of_kind.of(origin.site), origin.parent)
        mine = [i for i, owner in enumerate(self.owners) if owner == origin]
        newest = [i for i, source in enumerate(self.sources) if source == origin]
        return History(
            votes={origin.kind: votes},
            owners=(origin,) * len(mine),
            signatures=self.signatures[mine],
            sources=(origin,) * len(newest),
            directions=self.directions[newest],
        )

    def joined(self, part: History) -> History:
        """The memory with what `part` took from another; as if it had been admitted here."""
        origin = part.owners[0]
        votes = part.votes_on(origin.kind)
        counted = origin.site in votes.sites
        measures = Features(
            origin=origin,
            # Median, least and greatest have themselves as median, least and greatest.
            values=votes.of(origin.site) if counted else {},
            signatures=part.signatures,
            lengths=torch.empty(0),
            directions=part.directions,
        )
        return self.with_admitted(measures, votes=counted)

    def with_doubts(self, kind: str, doubts: Mapping[str, Exclusion]) -> History:
        """The memory after a review: those sites have no vote until they send something new.

        What is doubted of a site's newer records stays so.
        """
        votes = self.votes_on(kind).without(*doubts)
        news = {
            site: doubt
            for site, doubt in doubts.items()
            if site not in self.doubted or self.doubted[site].round <= doubt.round
        }
        return replace(self, votes={**self.votes, kind: votes}, doubted={**self.doubted, **news})

    def without(self, site: str) -> History:
        """The memory without a site, as after its erasure."""
        kept = [i for i, owner in enumerate(self.owners) if owner.site != site]
        others = [i for i, source in enumerate(self.sources) if source.site != site]
        return replace(
            self,
            votes={kind: votes.without(site) for kind, votes in self.votes.items()},
            owners=tuple(self.owners[i] for i in kept),
            signatures=self.signatures[kept],
            sources=tuple(self.sources[i] for i in others),
            directions=self.directions[others],
            doubted={other: why for other, why in self.doubted.items() if other != site},
            fresh=frozenset(origin for origin in self.fresh if origin.site != site),
        )

    def of_last_rounds(self, count: int) -> History:
        """The memory without networks that are older than the last so many rounds of their site."""
        rounds = defaultdict[str, set[int]](set)
        for owner in self.owners:
            rounds[owner.site].add(owner.round)
        since = {site: sorted(numbers)[-count:][0] for site, numbers in rounds.items()}
        kept = [i for i, owner in enumerate(self.owners) if owner.round >= since[owner.site]]
        return replace(
            self,
            owners=tuple(self.owners[i] for i in kept),
            signatures=_of(self.signatures, kept),
        )

    def networks_of(self, origin: SubmissionId) -> int:
        """How many networks of one submission are remembered."""
        mine = origin[:2]
        return sum(owner[:2] == mine for owner in self.owners)

    def votes_on(self, kind: str) -> SiteStatistics:
        """The votes on submissions of a kind; none if there are none yet."""
        return self.votes.get(kind, SiteStatistics())


def _of(rows: Tensor, kept: list[int]) -> Tensor:
    # Mostly all are, and these are megabytes.
    return rows if len(kept) == len(rows) else rows[kept]


def _below(some: Tensor, more: Tensor) -> Tensor:
    return torch.cat([some, more]) if len(some) else more
