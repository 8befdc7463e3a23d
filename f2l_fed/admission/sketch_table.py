"""Sketches of submissions: a growing table, with those near a given one found by an index.

Distances along a few orthonormal directions are never larger than those between the vectors, so
that a tree of such short vectors finds everything that may be near, and little else; the caller
measures those few exactly. The directions are the principal ones of a sample, and affect the time
alone. What came since the tree was made is looked through one by one; the tree is made again
whenever that is an eighth of the rows, which costs an answer the same however many there are.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from f2l_fed.admission.submission import SubmissionId

_DIRECTIONS = 32
_SAMPLE = 1024
"""Rows from which the directions are taken."""

_FEW = 512
"""Rows below which there is no index: all are near."""

_SLACK = 1e-4
"""Of a distance, more than its rounding in float32."""


class Cohort:
    """The rows of one exchange, in the order of their sites' names and of arrival."""

    def __init__(self) -> None:
        self.members: list[tuple[str, int]] = []
        self.sites: Counter[str] = Counter()

    def add(self, site: str, row: int) -> None:
        """Adds a row."""
        insort(self.members, (site, row))
        self.sites[site] += 1

    def remove(self, site: str, row: int) -> None:
        """Removes a row."""
        del self.members[bisect_left(self.members, (site, row))]
        self.sites[site] -= 1
        if not self.sites[site]:
            del self.sites[site]

    def without(self, site: str) -> Sequence[tuple[str, int]]:
        """The members of all other sites."""
        if site not in self.sites:
            return self.members
        return [member for member in self.members if member[0] != site]


class SketchTable:
    """Sketches with the submissions they are of; changed in place.

    Args:
        cohort_of: The exchange that a submission belongs to, for `cohort`.
        ids: The submission of each row, in order of arrival.
        rows: (n, S) float32.

    Attributes:
        shared: Whether several histories have it, so that none may change it.
    """

    def __init__(
        self,
        cohort_of: Callable[[SubmissionId], Hashable],
        ids: Iterable[SubmissionId] = (),
        rows: Tensor | None = None,
    ) -> None:
        self._cohort_of, self.shared = cohort_of, False
        self._fill(list(ids), torch.empty(0, 0) if rows is None else rows)

    def _fill(self, ids: list[SubmissionId], rows: Tensor) -> None:
        self._ids: list[SubmissionId | None] = [*ids]
        self._buffer = rows
        self._of_site: dict[str, list[int]] = {}
        self._cohorts: dict[Hashable, Cohort] = {}
        members = dict[Hashable, list[tuple[str, int]]]()
        for row, one in enumerate(ids):
            self._of_site.setdefault(one.site, []).append(row)
            members.setdefault(self._cohort_of(one), []).append((one.site, row))
        for key, some in members.items():
            cohort = self._cohorts[key] = Cohort()
            cohort.members = sorted(some)
            cohort.sites.update(site for site, _ in some)
        self._gone = 0
        self._index: _Index | None = None

    def __len__(self) -> int:
        return len(self._ids) - self._gone

    @property
    def ids(self) -> tuple[SubmissionId, ...]:
        """The submission of each row, in order of arrival."""
        return tuple(one for one in self._ids if one is not None)

    @property
    def rows(self) -> Tensor:
        """(n, S) float32."""
        if not self._gone:
            return self._buffer[: len(self._ids)]
        return self.at([row for row, one in enumerate(self._ids) if one is not None])

    def owned(self) -> SketchTable:
        """A table that may be changed: this one, or a copy where several histories have it."""
        if not self.shared:
            return self
        return SketchTable(self._cohort_of, self.ids, self.rows.clone())

    def kept(self, wanted: Callable[[SubmissionId], bool]) -> SketchTable:
        """The table of some submissions; this one where that is all."""
        ids = self.ids
        chosen = [row for row, one in enumerate(ids) if wanted(one)]
        if len(chosen) == len(ids):
            return self
        return SketchTable(self._cohort_of, [ids[row] for row in chosen], self.rows[chosen])

    def add(self, one: SubmissionId, rows: Tensor) -> None:
        """Adds the rows of a submission."""
        if self._gone > max(len(self), _FEW):
            self._fill(list(self.ids), self.rows)
        first, end = len(self._ids), len(self._ids) + len(rows)
        if not first:
            self._buffer = rows.clone()
        elif end > len(self._buffer):
            self._buffer = torch.cat([self._buffer[:first], torch.empty(end, rows.shape[1])])
        self._buffer[first:end] = rows
        cohort = self._cohorts.setdefault(self._cohort_of(one), Cohort())
        for row in range(first, end):
            self._ids.append(one)
            self._of_site.setdefault(one.site, []).append(row)
            cohort.add(one.site, row)

    def remove(self, rows: Iterable[int]) -> None:
        """Removes rows by their numbers; those of others stay as they are."""
        for row in rows:
            one = self._ids[row]
            assert one is not None
            self._of_site[one.site].remove(row)
            self._cohorts[self._cohort_of(one)].remove(one.site, row)
            self._ids[row] = None
            self._gone += 1

    def of_site(self, site: str) -> list[tuple[int, SubmissionId]]:
        """The rows of a site: number and submission of each."""
        return [(row, self.id_of(row)) for row in self._of_site.get(site, ())]

    def cohort(self, key: Hashable) -> Cohort:
        """The rows of an exchange."""
        return self._cohorts.get(key, Cohort())

    def id_of(self, row: int) -> SubmissionId:
        """The submission of a row."""
        one = self._ids[row]
        assert one is not None
        return one

    def at(self, rows: Sequence[int]) -> Tensor:
        """(m, S) float32, some rows."""
        return self._buffer[torch.tensor(rows, dtype=torch.int64)]

    def near(self, vectors: Tensor, radius: Tensor) -> list[int]:
        """The numbers of all rows within a distance of one of some vectors, and of some more.

        Args:
            vectors: (m, S) float32.
            radius: (m,) float32, the distance from each.
        """
        end = len(self._ids)
        if end < _FEW:
            return [row for row, one in enumerate(self._ids) if one is not None]
        if self._index is None or not self._index.holds(end):
            self._index = _Index(self._buffer[:end])
        found = self._index.near(self._buffer[:end], vectors, radius)
        return [row for row in found if self._ids[row] is not None]


class _Index:
    """The rows along a few directions, in a tree but for those that came later."""

    def __init__(self, rows: Tensor) -> None:
        sample = rows[:: -(-len(rows) // _SAMPLE)].double()
        self._mean = sample.mean(0)
        _, vectors = torch.linalg.eigh((sample - self._mean).T @ (sample - self._mean))
        self._directions = vectors[:, -_DIRECTIONS:]
        short = np.concatenate([self._shortened(some) for some in rows.split(_SAMPLE)])
        self._tree, self._known = cKDTree(short, balanced_tree=False), len(rows)
        self._later, self._looked_at = np.empty((self._most_later, short.shape[1])), 0

    @property
    def _most_later(self) -> int:
        return max(self._known // 8, _FEW)

    def holds(self, rows: int) -> bool:
        """Whether there is room for so many rows."""
        return rows - self._known <= self._most_later

    def near(self, rows: Tensor, vectors: Tensor, radius: Tensor) -> list[int]:
        """The near ones of all rows, as `SketchTable.near` has them.

        Args:
            rows: (n, S) float32, beginning with those that the index was made of.
            vectors: (m, S) float32.
            radius: (m,) float32.
        """
        new = rows[self._known + self._looked_at :]
        self._later[self._looked_at :][: len(new)] = self._shortened(new)
        self._looked_at += len(new)
        short, sizes = self._shortened(vectors), vectors.double().norm(dim=1)
        reach = ((1 + _SLACK) * radius.double() + 1e-9 * sizes + 1e-30).numpy()
        found = {row for some in self._tree.query_ball_point(short, reach) for row in some}
        for one, most in zip(short, reach, strict=True):
            apart = np.square(self._later[: self._looked_at] - one).sum(1)
            found.update((np.flatnonzero(apart <= most**2) + self._known).tolist())
        return sorted(found)

    def _shortened(self, vectors: Tensor) -> NDArray[np.float64]:
        short: NDArray[np.float64] = ((vectors.double() - self._mean) @ self._directions).numpy()
        return short
