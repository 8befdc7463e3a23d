"""The admission history: statistics and sketches of the admitted submissions, one value.

Law: only what was admitted is in it, so poison that is kept out changes nothing; and of what was
admitted every site has one statistic a figure (`f2l_fed.admission.robust_statistics`).
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
    """The round of the newest records of a site that are excluded from retrainings, and why."""

    round: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class History:
    """Statistics of the sites, and sketches of their networks and updates.

    Args:
        statistics: Figures of the sites for each kind of round.
        signature_ids: The submission of each remembered network, in order of arrival.
        signatures: (n, S) float32, the networks' signatures; see `WeightSketch.signature`.
        direction_ids: The submission of each remembered update; a site's newest of each kind.
        directions: (u, 256) float32, the updates' sketches.
        excluded: Sites whose newest records are excluded from retrainings.
        unreviewed: Submissions that came since the last `review_cohort` as their site's newest
            of a kind.
    """

    statistics: Mapping[str, SiteStatistics] = field(default_factory=dict)
    signature_ids: tuple[SubmissionId, ...] = ()
    signatures: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    direction_ids: tuple[SubmissionId, ...] = ()
    directions: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    excluded: Mapping[str, Exclusion] = field(default_factory=dict)
    unreviewed: frozenset[SubmissionId] = frozenset()

    def with_admitted(
        self, new: Features, extra: Mapping[str, Tensor] | None = None, *, counted: bool = True
    ) -> History:
        """The history after a submission was admitted; the same one again replaces itself.

        A late submission, of an earlier round than the site's newest, is remembered to recognise
        copies; the newer one keeps its statistics and its exclusion.

        Args:
            new: Features of the submission.
            extra: More figures by name, (m,) each.
            counted: Whether its figures enter the statistics.
        """
        mine = new.id
        kept = [row for row, other in enumerate(self.signature_ids) if other[:2] != mine[:2]]
        known = replace(
            self,
            signature_ids=(
                *(self.signature_ids[row] for row in kept),
                *[mine] * len(new.signatures),
            ),
            signatures=_append(_select(self.signatures, kept), new.signatures),
        )
        if any(
            (other.site, other.kind) == (mine.site, mine.kind) and other.round > mine.round
            for other in self.direction_ids
        ):
            return known
        of_kind = self.statistics_on(mine.kind)
        of_kind = (
            of_kind.with_site(mine.site, {**new.values, **(extra or {})}, mine.parent)
            if counted
            else of_kind.without(mine.site)
        )
        others = [
            row
            for row, other in enumerate(self.direction_ids)
            if (other.site, other.kind) != (mine.site, mine.kind)
        ]
        return replace(
            known,
            statistics={**self.statistics, mine.kind: of_kind},
            direction_ids=(
                *(self.direction_ids[row] for row in others),
                *[mine] * len(new.directions),
            ),
            directions=_append(_select(self.directions, others), new.directions),
            unreviewed=self.unreviewed | {mine},
            excluded={
                site: exclusion
                for site, exclusion in self.excluded.items()
                if site != mine.site or exclusion.round > mine.round
            },
        )

    def part(self, submission: SubmissionId) -> History:
        """The part that a submission admitted just now has added, as a history of its own."""
        of_kind = self.statistics_on(submission.kind)
        statistics = SiteStatistics()
        if submission.site in of_kind.sites:
            statistics = statistics.with_site(
                submission.site, of_kind.of(submission.site), submission.parent
            )
        networks = [row for row, other in enumerate(self.signature_ids) if other == submission]
        updates = [row for row, other in enumerate(self.direction_ids) if other == submission]
        return History(
            statistics={submission.kind: statistics},
            signature_ids=(submission,) * len(networks),
            signatures=self.signatures[networks],
            direction_ids=(submission,) * len(updates),
            directions=self.directions[updates],
        )

    def joined(self, part: History) -> History:
        """The history with a `part` of another one, as if that had been admitted here."""
        submission = part.signature_ids[0]
        statistics = part.statistics_on(submission.kind)
        counted = submission.site in statistics.sites
        features = Features(
            id=submission,
            # Median, least and greatest have themselves as median, least and greatest.
            values=statistics.of(submission.site) if counted else {},
            signatures=part.signatures,
            lengths=torch.empty(0),
            directions=part.directions,
        )
        return self.with_admitted(features, counted=counted)

    def with_exclusions(self, kind: str, exclusions: Mapping[str, Exclusion]) -> History:
        """The history after a review: the sites are left out of the statistics until they send
        something new.

        An exclusion of a site's newer records stays.
        """
        of_kind = self.statistics_on(kind).without(*exclusions)
        new = {
            site: exclusion
            for site, exclusion in exclusions.items()
            if site not in self.excluded or self.excluded[site].round <= exclusion.round
        }
        return replace(
            self,
            statistics={**self.statistics, kind: of_kind},
            excluded={**self.excluded, **new},
        )

    def without(self, site: str) -> History:
        """The history without a site, as after its erasure."""
        networks = [row for row, other in enumerate(self.signature_ids) if other.site != site]
        updates = [row for row, other in enumerate(self.direction_ids) if other.site != site]
        return replace(
            self,
            statistics={kind: some.without(site) for kind, some in self.statistics.items()},
            signature_ids=tuple(self.signature_ids[row] for row in networks),
            signatures=self.signatures[networks],
            direction_ids=tuple(self.direction_ids[row] for row in updates),
            directions=self.directions[updates],
            excluded={other: why for other, why in self.excluded.items() if other != site},
            unreviewed=frozenset(other for other in self.unreviewed if other.site != site),
        )

    def of_last_rounds(self, count: int) -> History:
        """The history without networks older than the last so many rounds of their site."""
        rounds = defaultdict[str, set[int]](set)
        for one in self.signature_ids:
            rounds[one.site].add(one.round)
        since = {site: sorted(numbers)[-count:][0] for site, numbers in rounds.items()}
        kept = [row for row, one in enumerate(self.signature_ids) if one.round >= since[one.site]]
        return replace(
            self,
            signature_ids=tuple(self.signature_ids[row] for row in kept),
            signatures=_select(self.signatures, kept),
        )

    def networks_of(self, submission: SubmissionId) -> int:
        """Number of remembered networks of a submission's site and round."""
        return sum(other[:2] == submission[:2] for other in self.signature_ids)

    def statistics_on(self, kind: str) -> SiteStatistics:
        """The statistics of a kind of rounds; empty ones if there are none yet."""
        return self.statistics.get(kind, SiteStatistics())


def _select(rows: Tensor, kept: list[int]) -> Tensor:
    # Mostly all are kept, and these are megabytes.
    return rows if len(kept) == len(rows) else rows[kept]


def _append(rows: Tensor, new: Tensor) -> Tensor:
    return torch.cat([rows, new]) if len(rows) else new
