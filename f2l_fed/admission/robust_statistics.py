"""Robust statistics over sites: one value of each site a figure, their median and deviation.

Law: while Byzantine sites are fewer than half, the median lies between two honest values and the
median deviation is bounded by honest differences, whatever Byzantine sites send and however often.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# Median deviations of a normal distribution in its standard deviation.
_NORMAL = 1.4826


class Reference(NamedTuple):
    """A figure over sites: median, robust standard deviation, and number of sites that have it."""

    median: float
    spread: float
    sites: int

    def deviations(self, values: Tensor) -> Tensor:
        """Distances of values from the median, in robust standard deviations; elementwise."""
        return (values - self.median) / self.spread


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SiteStatistics:
    """The newest figures of every site.

    Args:
        names: Names of the figures.
        sites: The sites, in the order of their first figures.
        parents: The release that made each site's starts; "" for the anchor.
        values: (sites, names, 3) float64: median, least and greatest over the site's networks;
            NaN where a site has no such figure.
    """

    names: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    values: Tensor = field(default_factory=lambda: torch.empty(0, 0, 3, dtype=torch.float64))
    _references: dict[tuple[str, str, float], Reference] = field(default_factory=dict, init=False)

    def with_site(
        self, site: str, figures: Mapping[str, Tensor], parent: str = ""
    ) -> SiteStatistics:
        """The statistics with a site's figures, (m,) by name, in place of its old ones."""
        names = (*self.names, *(name for name in figures if name not in self.names))
        sites = self.sites if site in self.sites else (*self.sites, site)
        parents = dict(zip(self.sites, self.parents, strict=True)) | {site: parent}
        values = torch.full((len(sites), len(names), 3), torch.nan, dtype=torch.float64)
        values[: len(self.sites), : len(self.names)] = self.values
        mine = values[sites.index(site)].fill_(torch.nan)
        for name, each in figures.items():
            mine[names.index(name)] = torch.stack(
                [each.double().quantile(0.5), *each.double().aminmax()]
            )
        return SiteStatistics(
            names=names, sites=sites, parents=tuple(parents.values()), values=values
        )

    def without(self, *sites: str) -> SiteStatistics:
        """The statistics without some sites."""
        out = frozenset(sites)
        return self._select([row for row, site in enumerate(self.sites) if site not in out])

    def from_release(self, parent: str) -> SiteStatistics:
        """The statistics of the sites that started from one release."""
        return self._select([row for row, other in enumerate(self.parents) if other == parent])

    def of(self, site: str) -> dict[str, Tensor]:
        """A site's figures by name, (3,) float64 each."""
        return self._by_name(self.values[self.sites.index(site)])

    def each(self) -> Iterator[tuple[str, str, dict[str, Tensor]]]:
        """Every site with its parent release and its figures, as `of` gives them."""
        for site, parent, mine in zip(self.sites, self.parents, self.values, strict=True):
            yield site, parent, self._by_name(mine)

    def reference(self, name: str, floor: float) -> Reference:
        """`reference_of` a figure's medians; over no sites if none has it."""
        return self._cached("value", name, floor, reference_of)

    def length_reference(self, name: str, floor: float) -> Reference:
        """`length_reference_of` the lengths of which a figure is the logarithm."""
        return self._cached(
            "length", name, floor, lambda logs, at: length_reference_of(np.exp(logs), at)
        )

    def _select(self, rows: list[int]) -> SiteStatistics:
        return SiteStatistics(
            names=self.names,
            sites=tuple(self.sites[row] for row in rows),
            parents=tuple(self.parents[row] for row in rows),
            values=self.values[rows],
        )

    def _by_name(self, mine: Tensor) -> dict[str, Tensor]:
        unknown = mine.isnan().any(dim=1).tolist()
        return {
            name: value
            for name, value, missing in zip(self.names, mine, unknown, strict=True)
            if not missing
        }

    def _cached(
        self, kind: str, name: str, floor: float, make: Callable[[np.ndarray, float], Reference]
    ) -> Reference:
        key = kind, name, floor
        if key not in self._references:
            self._references[key] = make(self._medians(name), floor)
        return self._references[key]

    def _medians(self, name: str) -> np.ndarray:
        if name not in self.names:
            return np.empty(0)
        medians = self.values[:, self.names.index(name), 0].numpy()
        known: np.ndarray = medians[~np.isnan(medians)]
        return known


def reference_of(values: Sequence[float] | np.ndarray, floor: float) -> Reference:
    """Median and 1.4826 times the median deviation from it, which is at least ``floor``.

    >>> reference_of([1.0, 2.0, 3.0, 1e9], floor=0.1)
    Reference(median=2.5, spread=1.4826, sites=4)
    """
    if not len(values):
        return Reference(0.0, floor, 0)
    known = np.asarray(values)
    median = _median(known)
    deviation = _median(np.abs(known - median))
    return Reference(median, max(_NORMAL * deviation, floor), len(values))


def length_reference_of(lengths: Sequence[float] | np.ndarray, floor: float) -> Reference:
    """Median and the smaller of two robust standard deviations.

    One is 1.4826 times the median distance below the median of those that aren't above it, which
    a minority of long ones moves only as far as it moves the median; the other that of the
    logarithms, which a quarter of short ones doesn't widen as they do the first.

    Law: the spread is at most 1.4826 medians, since no length is below 0.

    Args:
        lengths: Positive lengths.
        floor: Smallest spread, in medians.

    >>> length_reference_of([0.25, 0.5, 1.0, 50.0, 60.0], floor=0.1)
    Reference(median=1.0, spread=0.7413, sites=5)
    """
    if not len(lengths):
        return Reference(0.0, floor, 0)
    known = np.asarray(lengths)
    median = _median(known)
    below = _NORMAL * _median(median - known[known <= median])
    ratio = exp(reference_of(np.log(known / median), 0.0).spread) - 1
    return Reference(median, max(min(below, ratio * median), floor * median), len(lengths))


def _median(values: np.ndarray) -> float:
    # numpy.median takes ten times as long for a thousand values.
    high = len(values) // 2
    low = high if len(values) % 2 else high - 1
    between = np.partition(values, (low, high))
    return float(between[low] + between[high]) / 2
