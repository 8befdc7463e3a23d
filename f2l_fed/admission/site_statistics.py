"""Statistics of sites: one value of each site a figure, in ascending order over sites too.

An answer changes one value of each figure, and its comparison with the others takes a few of them
from the middle: neither depends on how many sites there are but for moving numbers in an array.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from f2l_fed.admission.robust_statistics import (
    Reference,
    ascending_length_reference,
    ascending_reference,
)


class Ranking:
    """The medians of some sites' figures, in ascending order for each figure."""

    def __init__(self) -> None:
        self._values: dict[str, array[float]] = {}

    @classmethod
    def of(cls, sites: Iterable[Mapping[str, float]]) -> Ranking:
        """The ranking of sites with these figures."""
        ranking, found = cls(), dict[str, list[float]]()
        for figures in sites:
            for name, value in figures.items():
                found.setdefault(name, []).append(value)
        ranking._values = {name: array("d", sorted(values)) for name, values in found.items()}
        return ranking

    def add(self, figures: Mapping[str, float]) -> None:
        """Adds a site's figures."""
        for name, value in figures.items():
            insort(self._values.setdefault(name, array("d")), value)

    def remove(self, figures: Mapping[str, float]) -> None:
        """Removes a site's figures, which were added."""
        for name, value in figures.items():
            values = self._values[name]
            del values[bisect_left(values, value)]

    def reference(self, name: str, floor: float) -> Reference:
        """`reference_of` a figure's medians; over no sites if none has it."""
        return ascending_reference(self._values.get(name, array("d")), floor)

    def length_reference(self, name: str, floor: float) -> Reference:
        """`length_reference_of` the lengths of which a figure is the logarithm."""
        return ascending_length_reference(self._values.get(name, array("d")), floor)


class SiteStatistics:
    """The newest figures of every site; changed in place.

    Args:
        names: Names of the figures.
        sites: The sites.
        parents: The release that made each site's starts; "" for the anchor.
        values: (sites, names, 3) float64: median, least and greatest over the site's networks;
            NaN where a site has no such figure.
    """

    def __init__(
        self,
        *,
        names: Sequence[str] = (),
        sites: Sequence[str] = (),
        parents: Sequence[str] = (),
        values: Tensor | None = None,
    ) -> None:
        self._names = list(names)
        known = () if values is None else values.numpy()
        self._rows: dict[str, tuple[str, NDArray[np.float64]]] = {
            site: (parent, row) for site, parent, row in zip(sites, parents, known, strict=True)
        }
        # Made when they are asked for, and kept in step from then on.
        self._everyone: Ranking | None = None
        self._by_parent: dict[str, Ranking] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the figures."""
        return tuple(self._names)

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites, in the order of their newest figures."""
        return tuple(self._rows)

    @property
    def parents(self) -> tuple[str, ...]:
        """The release that made each site's starts; "" for the anchor."""
        return tuple(parent for parent, _ in self._rows.values())

    @property
    def values(self) -> Tensor:
        """(sites, names, 3) float64; see the class."""
        values = np.full((len(self._rows), len(self._names), 3), np.nan)
        for row, (_, mine) in zip(values, self._rows.values(), strict=True):
            row[: len(mine)] = mine
        return torch.from_numpy(values)

    def __contains__(self, site: str) -> bool:
        return site in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def copy(self) -> SiteStatistics:
        """Statistics that can be changed without changing these."""
        copied = SiteStatistics(names=self._names)
        # Rows are replaced as a whole.
        copied._rows = dict(self._rows)
        return copied

    def put(self, site: str, figures: Mapping[str, Tensor], parent: str = "") -> None:
        """Puts a site's figures, (m,) by name, in the place of its old ones."""
        self.remove(site)
        self._names += [name for name in figures if name not in self._names]
        mine = np.full((len(self._names), 3), np.nan)
        for name, each in figures.items():
            values = np.sort(each.double().numpy())
            # Of two values in the middle, the mean as `torch.quantile` has it.
            low, high = values[(len(values) - 1) // 2], values[len(values) // 2]
            middle = high - (high - low) / 2
            mine[self._names.index(name)] = middle, values[0], values[-1]
        self._rows[site] = parent, mine
        for ranking in self._rankings(parent):
            ranking.add(self._medians(mine))

    def remove(self, *sites: str) -> None:
        """Removes sites, if they are there."""
        for site in sites:
            if site in self._rows:
                parent, mine = self._rows.pop(site)
                for ranking in self._rankings(parent):
                    ranking.remove(self._medians(mine))

    def everyone(self) -> Ranking:
        """The ranking of all sites."""
        if self._everyone is None:
            self._everyone = Ranking.of(self._medians(mine) for _, mine in self._rows.values())
        return self._everyone

    def from_release(self, parent: str) -> Ranking:
        """The ranking of the sites that started from one release."""
        if parent not in self._by_parent:
            self._by_parent[parent] = Ranking.of(
                self._medians(mine) for other, mine in self._rows.values() if other == parent
            )
        return self._by_parent[parent]

    def of(self, site: str) -> dict[str, Tensor]:
        """A site's figures by name, (3,) float64 each."""
        return self._by_name(self._rows[site][1])

    def each(self) -> Iterator[tuple[str, str, dict[str, Tensor]]]:
        """Every site with its parent release and its figures, as `of` gives them."""
        for site, (parent, mine) in self._rows.items():
            yield site, parent, self._by_name(mine)

    def _rankings(self, parent: str) -> list[Ranking]:
        """The rankings kept in step that have the sites which started from a release."""
        found = (self._everyone, self._by_parent.get(parent))
        return [ranking for ranking in found if ranking is not None]

    def _medians(self, mine: NDArray[np.float64]) -> dict[str, float]:
        medians = zip(self._names, mine[:, 0].tolist(), strict=False)
        return {name: value for name, value in medians if value == value}

    def _by_name(self, mine: NDArray[np.float64]) -> dict[str, Tensor]:
        known = zip(self._names, torch.from_numpy(mine), strict=False)
        return {name: value for name, value in known if not bool(value.isnan().any())}
