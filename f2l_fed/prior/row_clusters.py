"""Clusters of output rows: the classes of a federation as far as weights can tell them apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor
from torch.nn import functional

from f2l_fed.targets.head_rows import row_is_present

_MOST_ROWS = 800
"""Rows that are clustered; where there are more, evenly spaced ones are."""

_MOST_SORTED = 50_000
"""Rows among which copies are looked for before."""

_NUMBERS = (2, 3, *range(4, 61, 2))
"""Numbers of clusters that are tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowClusters:
    """Clusters of rows by direction.

    Args:
        labels: (n, E, K) int64, the cluster of each row; that of padding means nothing.
        sums: (n, m, R) float32, the sum of each site's unit rows in each cluster.
        counts: (n, m) int64, their number.
    """

    labels: Tensor
    sums: Tensor
    counts: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> RowClusters:
        """Clusters rows: average linkage on cosines, as many as have the best silhouette.

        Args:
            rows: (n, E, K, R) float32, with at least two rows that are none of padding.

        Reference:
            Rousseeuw: Silhouettes. Journal of Computational and Applied Mathematics 20, 1987.
        """
        units = functional.normalize(rows, dim=3)
        there = row_is_present(rows)
        # On vectors all of a site's pairs have one head on all examples: copies would be clusters.
        flat = _spaced(_spaced(units[there], _MOST_SORTED).unique(dim=0), _MOST_ROWS)
        first = torch.from_numpy(_clustered(flat.double().numpy()))
        means = torch.zeros(int(first.max()) + 1, rows.shape[3]).index_add_(0, first, flat)
        nearest = (units @ functional.normalize(means, dim=1).T).argmax(3)
        used, labels = nearest.unique(return_inverse=True)
        hot = functional.one_hot(labels, len(used)) * there[..., None]
        return cls(
            labels=labels,
            sums=torch.einsum("nekm,nekr->nmr", hot.to(units.dtype), units),
            counts=hot.sum((1, 2)),
        )

    @property
    def centroids(self) -> Tensor:
        """(m, R) float32, the mean direction of each cluster, of unit length."""
        return functional.normalize(self.sums.sum(0), dim=1)

    def centroids_without_each(self) -> Iterator[Tensor]:
        """For each site the centroids without its rows, of the clusters that others have too."""
        sums, counts = self.sums.sum(0), self.counts.sum(0)
        for own, number in zip(self.sums, self.counts, strict=True):
            yield functional.normalize((sums - own)[counts - number > 0], dim=1)


def _spaced(rows: Tensor, most: int) -> Tensor:
    """Up to so many rows, evenly spaced."""
    return rows[:: -(-len(rows) // most)]


def _clustered(units: NDArray[np.float64]) -> NDArray[np.int64]:
    """(n,) labels from 0 of (n, R) unit rows."""
    distances = np.clip(1 - units @ units.T, 0, None)
    np.fill_diagonal(distances, 0)
    tree = linkage(squareform(distances, checks=False), "average")
    divisions = [
        np.unique(fcluster(tree, number, "maxclust"), return_inverse=True)[1]
        for number in _NUMBERS
        if number < len(units)
    ]
    return max(divisions, key=lambda labels: _silhouette(distances, labels))


def _silhouette(distances: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """The mean over rows of how much nearer the own cluster is than the next one, in [-1, 1]."""
    hot = np.eye(int(labels.max()) + 1)[labels]
    sizes, rows = hot.sum(0), np.arange(len(labels))
    if len(sizes) < 2:
        return -1.0
    sums = distances @ hot
    own = sums[rows, labels] / np.maximum(sizes[labels] - 1, 1)
    means = sums / sizes
    means[rows, labels] = np.inf
    nearest = means.min(1)
    widths = (nearest - own) / np.maximum(np.maximum(own, nearest), 1e-30)
    return float(widths[sizes[labels] > 1].sum() / len(labels))
