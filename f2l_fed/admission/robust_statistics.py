"""What sites have, figure by figure: one vote of every site, and what is usual among them.

Law: while sites that lie are fewer than half, the median of the votes lies between two honest
votes and the median deviation is bounded by honest differences, whatever the liars send and
however often they send it.
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
    """What others have: median, robust standard deviation, and how many of them do."""

    centre: float
    spread: float
    voters: int

    def deviations(self, values: Tensor) -> Tensor:
        """How far values are from the median, in robust standard deviations; elementwise."""
        return (values - self.centre) / self.spread


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SiteStatistics:
    """The newest figures of every site.

    Args:
        names: Of the figures.
        sites: In the order in which they first came.
        parents: The release that made each one's starts; "" for the anchor.
        values: (sites, names, 3) float64: median, least and greatest over the site's networks;
            NaN where a site has no such figure.
    """

    names: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    values: Tensor = field(default_factory=lambda: torch.empty(0, 0, 3, dtype=torch.float64))
    _found: dict[tuple[str, str, float], Reference] = field(default_factory=dict, init=False)

    def with_site(
        self, site: str, figures: Mapping[str, Tensor], parent: str = ""
    ) -> SiteStatistics:
        """The votes after a site's figures, (m,) by name, came in instead of its old ones."""
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
        """The votes without some sites'."""
        out = frozenset(sites)
        return self._of([index for index, other in enumerate(self.sites) if other not in out])

    def from_release(self, parent: str) -> SiteStatistics:
        """The votes of those that started from one release."""
        return self._of([index for index, other in enumerate(self.parents) if other == parent])

    def _of(self, kept: list[int]) -> SiteStatistics:
        return SiteStatistics(
            names=self.names,
            sites=tuple(self.sites[index] for index in kept),
            parents=tuple(self.parents[index] for index in kept),
            values=self.values[kept],
        )

    def of(self, site: str) -> dict[str, Tensor]:
        """A site's figures by name, (3,) float64 each."""
        return self._named(self.values[self.sites.index(site)])

    def each(self) -> Iterator[tuple[str, str, dict[str, Tensor]]]:
        """Every site with the release that it started from and its figures, as `of` gives them."""
        for site, parent, mine in zip(self.sites, self.parents, self.values, strict=True):
            yield site, parent, self._named(mine)

    def _named(self, mine: Tensor) -> dict[str, Tensor]:
        unknown = mine.isnan().any(dim=1).tolist()
        return {
            name: value
            for name, value, missing in zip(self.names, mine, unknown, strict=True)
            if not missing
        }

    def usual(self, name: str, floor: float) -> Reference:
        """What is usual of a figure; without voters if nobody has it."""
        return self._once("usual", name, floor, usual)

    def usual_length(self, name: str, floor: float) -> Reference:
        """What is usual of a length whose logarithm is the figure, as a length."""
        return self._once("length", name, floor, lambda logs, at: usual_length(np.exp(logs), at))

    def _once(
        self, kind: str, name: str, floor: float, made: Callable[[np.ndarray, float], Reference]
    ) -> Reference:
        key = kind, name, floor
        if key not in self._found:
            self._found[key] = made(self._on(name), floor)
        return self._found[key]

    def _on(self, name: str) -> np.ndarray:
        if name not in self.names:
            return np.empty(0)
        votes = self.values[:, self.names.index(name), 0].numpy()
        known: np.ndarray = votes[~np.isnan(votes)]
        return known


def usual(votes: Sequence[float] | np.ndarray, floor: float) -> Reference:
    """Median and 1.4826 times the median deviation from it, which is at least ``floor``.

    >>> usual([1.0, 2.0, 3.0, 1e9], floor=0.1)
    Reference(centre=2.5, spread=1.4826, voters=4)
    """
    if not len(votes):
        return Reference(0.0, floor, 0)
    known = np.asarray(votes)
    centre = _median(known)
    deviation = _median(np.abs(known - centre))
    return Reference(centre, max(_NORMAL * deviation, floor), len(votes))


def usual_length(votes: Sequence[float] | np.ndarray, floor: float) -> Reference:
    """Median and the smaller of two robust standard deviations.

    One is 1.4826 times the median distance below the median of those that aren't above it, which
    a minority of long ones moves only as far as it moves the median; the other that of the
    logarithms, which a quarter of short ones doesn't widen as they do the first.

    Law: the spread is at most 1.4826 medians, since no length is below 0.

    Args:
        votes: Positive lengths.
        floor: Smallest spread, in medians.

    >>> usual_length([0.25, 0.5, 1.0, 50.0, 60.0], floor=0.1)
    Reference(centre=1.0, spread=0.7413, voters=5)
    """
    if not len(votes):
        return Reference(0.0, floor, 0)
    lengths = np.asarray(votes)
    centre = _median(lengths)
    below = _NORMAL * _median(centre - lengths[lengths <= centre])
    ratio = exp(usual(np.log(lengths / centre), 0.0).spread) - 1
    return Reference(centre, max(min(below, ratio * centre), floor * centre), len(votes))


def _median(values: np.ndarray) -> float:
    # Of a thousand, numpy.median takes ten times as long.
    high = len(values) // 2
    low = high if len(values) % 2 else high - 1
    between = np.partition(values, (low, high))
    return float(between[low] + between[high]) / 2
