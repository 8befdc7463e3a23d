"""The admission history: statistics and sketches of the admitted submissions, one value.

Law: only what was admitted is in it, so poison that is kept out changes nothing; and of what was
admitted every site has one statistic a figure (`f2l_fed.admission.robust_statistics`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

from f2l_fed.admission.features import Features
from f2l_fed.admission.site_statistics import SiteStatistics
from f2l_fed.admission.sketch_table import SketchTable
from f2l_fed.admission.submission import SubmissionId


class Exclusion(NamedTuple):
    """The round of the newest records of a site that are excluded from retrainings, and why."""

    round: int
    reason: str


class History:
    """Statistics of the sites, and sketches of their networks and updates.

    A history is a value but for `admit`, `join` and `exclude`, which change it in place: an answer
    adds little to what may be hundreds of megabytes.

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

    def __init__(
        self,
        *,
        statistics: Mapping[str, SiteStatistics] | None = None,
        signature_ids: Iterable[SubmissionId] = (),
        signatures: Tensor | None = None,
        direction_ids: Iterable[SubmissionId] = (),
        directions: Tensor | None = None,
        excluded: Mapping[str, Exclusion] | None = None,
        unreviewed: Iterable[SubmissionId] = (),
    ) -> None:
        self.statistics = dict(statistics or {})
        self.networks = SketchTable(network_cohort, signature_ids, signatures)
        self.updates = SketchTable(update_cohort, direction_ids, directions)
        self.excluded = dict(excluded or {})
        self.unreviewed = set(unreviewed)

    @property
    def signature_ids(self) -> tuple[SubmissionId, ...]:
        """The submission of each remembered network, in order of arrival."""
        return self.networks.ids

    @property
    def signatures(self) -> Tensor:
        """(n, S) float32, the networks' signatures."""
        return self.networks.rows

    @property
    def direction_ids(self) -> tuple[SubmissionId, ...]:
        """The submission of each remembered update."""
        return self.updates.ids

    @property
    def directions(self) -> Tensor:
        """(u, 256) float32, the updates' sketches."""
        return self.updates.rows

    def copy(self) -> History:
        """A history that can be changed without changing this one."""
        copied = History(excluded=self.excluded, unreviewed=self.unreviewed)
        copied.statistics = {kind: some.copy() for kind, some in self.statistics.items()}
        copied.networks, copied.updates = self.networks, self.updates
        self.networks.shared = self.updates.shared = True
        return copied

    def with_admitted(
        self, new: Features, extra: Mapping[str, Tensor] | None = None, *, counted: bool = True
    ) -> History:
        """The history after `admit`, as another one."""
        history = self.copy()
        history.admit(new, extra, counted=counted)
        return history

    def admit(
        self, new: Features, extra: Mapping[str, Tensor] | None = None, *, counted: bool = True
    ) -> None:
        """Takes in a submission that was admitted; the same one again replaces itself.

        A late submission, of an earlier round than the site's newest, is remembered to recognise
        copies; the newer one keeps its statistics and its exclusion.

        Args:
            new: Features of the submission.
            extra: More figures by name, (m,) each.
            counted: Whether its figures enter the statistics.
        """
        self.networks, self.updates = self.networks.owned(), self.updates.owned()
        mine = new.id
        of_site = self.networks.of_site(mine.site)
        self.networks.remove([row for row, other in of_site if other.round == mine.round])
        self.networks.add(mine, new.signatures)
        of_kind = [one for one in self.updates.of_site(mine.site) if one[1].kind == mine.kind]
        if any(other.round > mine.round for _, other in of_kind):
            return
        self.updates.remove(row for row, _ in of_kind)
        self.updates.add(mine, new.directions)
        statistics = self.statistics.setdefault(mine.kind, SiteStatistics())
        if counted:
            statistics.put(mine.site, {**new.values, **(extra or {})}, mine.parent)
        else:
            statistics.remove(mine.site)
        self.unreviewed.add(mine)
        exclusion = self.excluded.get(mine.site)
        if exclusion is not None and exclusion.round <= mine.round:
            del self.excluded[mine.site]

    def join(self, part: History) -> None:
        """Takes in the one submission of another history, as if it had been admitted here."""
        submission = part.signature_ids[0]
        statistics = part.statistics_on(submission.kind)
        counted = submission.site in statistics
        features = Features(
            id=submission,
            # Median, least and greatest have themselves as median, least and greatest.
            values=statistics.of(submission.site) if counted else {},
            signatures=part.signatures,
            lengths=part.signatures[:0, 0],
            directions=part.directions,
        )
        self.admit(features, counted=counted)

    def exclude(self, kind: str, exclusions: Mapping[str, Exclusion]) -> None:
        """Leaves sites out of the statistics after a review, until they send something new.

        An exclusion of a site's newer records stays.
        """
        self.statistics.setdefault(kind, SiteStatistics()).remove(*exclusions)
        for site, exclusion in exclusions.items():
            if site not in self.excluded or self.excluded[site].round <= exclusion.round:
                self.excluded[site] = exclusion

    def without(self, site: str) -> History:
        """The history without a site, as after its erasure."""
        history = self._kept(lambda one: one.site != site, lambda one: one.site != site)
        for some in history.statistics.values():
            some.remove(site)
        history.excluded.pop(site, None)
        history.unreviewed = {other for other in self.unreviewed if other.site != site}
        return history

    def of_last_rounds(self, count: int) -> History:
        """The history without networks older than the last so many rounds of their site."""
        rounds = defaultdict[str, set[int]](set)
        for one in self.networks.ids:
            rounds[one.site].add(one.round)
        since = {site: sorted(numbers)[-count:][0] for site, numbers in rounds.items()}
        return self._kept(lambda one: one.round >= since[one.site], lambda _: True)

    def _kept(
        self, networks: Callable[[SubmissionId], bool], updates: Callable[[SubmissionId], bool]
    ) -> History:
        history = self.copy()
        history.networks = self.networks.kept(networks)
        history.updates = self.updates.kept(updates)
        return history

    def networks_of(self, submission: SubmissionId) -> int:
        """Number of remembered networks of a submission's site and round."""
        of_site = self.networks.of_site(submission.site)
        return sum(other.round == submission.round for _, other in of_site)

    def statistics_on(self, kind: str) -> SiteStatistics:
        """The statistics of a kind of rounds; empty ones if there are none yet."""
        return self.statistics.get(kind) or SiteStatistics()


def network_cohort(one: SubmissionId) -> tuple[int, bool]:
    """The networks that a submission's are as near to as sites are: round, and whether the start
    was a release's."""
    return one.round, bool(one.parent)


def update_cohort(one: SubmissionId) -> tuple[int, str]:
    """The updates that a submission's are compared with: of its round and release."""
    return one.round, one.parent
