"""The likeness gate: how far a prior is trusted, by how like a site's classes are to known ones.

The map of the output rows is a memory of classes. For classes that other sites have it adds much
to what a site's few examples say; for classes that nobody has it adds what others' classes would
have needed. How like a site's classes are to known ones can be told without names of classes: by
the cosines between its expected rows and the centroids of clusters of the rows that were fitted.
What the map adds is multiplied by a factor that grows with this likeness.

The factors are learnt from the records. Every row is predicted twice: without its own site, as a
new site's known class would be, and without its cluster as well, as a class that nobody has. Only
centroids belong to the release, no row of a site.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import isotonic_regression
from torch import Tensor
from torch.nn import functional

from f2l_fed.prior.row_clusters import RowClusters
from f2l_fed.targets.head_rows import row_is_present

_BINS = 10
"""Groups of equal size by likeness, each of which gives a factor."""

_LARGEST_FACTOR = 1.2

_FOLDS = 10
"""Groups of sites that are left out together with a cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LikenessGate:
    """Factors on what a map adds to the rows of a site, by likeness.

    Args:
        centroids: (m, R) float32, of unit length; (0, 0) for a gate that lets everything through.
        likeness: (b,) float32, in ascending order.
        factors: (b,) float32, the factors at these; linear between, constant beyond.
    """

    centroids: Tensor
    likeness: Tensor
    factors: Tensor

    @classmethod
    def open(cls) -> LikenessGate:
        """The gate that lets everything through."""
        nothing = torch.zeros(0)
        return cls(centroids=torch.zeros(0, 0), likeness=nothing, factors=nothing)

    def __call__(self, expected: Tensor) -> Tensor:
        """(n, K, R) expected rows of n sites to their (n,) factors."""
        if not len(self.centroids):
            return expected.new_ones(len(expected))
        return self.factors_at(mean_likeness(expected, self.centroids))

    def factors_at(self, likeness: Tensor) -> Tensor:
        """The factors at any likeness, in its shape."""
        known, factors = self.likeness.double().numpy(), self.factors.double().numpy()
        found = np.interp(likeness.double().numpy(), known, factors)
        return torch.from_numpy(found).to(likeness.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateFit:
    """A fitted gate.

    Args:
        gate: The gate.
        held_out: (n, E) float32, the factor for every record at its likeness to other sites' rows.
    """

    gate: LikenessGate
    held_out: Tensor


def mean_likeness(rows: Tensor, centroids: Tensor) -> Tensor:
    """The likeness of sites to known classes: the mean over rows of the largest cosine.

    Args:
        rows: (n, K, R) float; padding, for classes that a site lacks, doesn't count.
        centroids: (m, R) float, of unit length.

    Returns:
        (n,) float.
    """
    cosines = functional.normalize(rows, dim=-1) @ centroids.T
    return _over_present(cosines.amax(-1), rows)


def _over_present(values: Tensor, rows: Tensor) -> Tensor:
    """(…, K) values of (…, K, R) rows to (…), their means over the rows that a site has."""
    there = row_is_present(rows)
    return (values * there).sum(-1) / there.sum(-1).clamp(min=1)


def fit_gate(contexts: Tensor, weights: Tensor, held_out: Tensor, strength: float) -> GateFit:
    """Fits a gate for a map of rows.

    Args:
        contexts: (n, E, K, R) float32, rows of the contexts of n sites.
        weights: (n, E, K, R) float32, the rows that belong to each.
        held_out: (n, E, K, R) float32, what the map adds to each context when it is fitted without
            the records of the site.
        strength: λ of the map.
    """
    clusters = RowClusters.of(weights)
    familiar = torch.stack(
        [
            mean_likeness(contexts[site] + held_out[site], clusters.centroids_without(site))
            for site in range(len(contexts))
        ]
    )
    strange = _without_clusters(contexts, weights - contexts, clusters, strength)
    unfamiliar = _likeness_without_clusters(contexts + strange, clusters)
    gate = _gate(
        torch.stack([familiar, unfamiliar]).flatten(),
        torch.stack([held_out, strange]).flatten(0, 2),
        (weights - contexts).expand(2, *weights.shape).flatten(0, 2),
        clusters.centroids,
    )
    return GateFit(gate=gate, held_out=gate.factors_at(familiar))


def _gate(likeness: Tensor, added: Tensor, wanted: Tensor, centroids: Tensor) -> LikenessGate:
    """The best factors on (N, K, R) additions by (N,) likeness, made to grow with it."""
    bins = [one for one in likeness.argsort().tensor_split(_BINS) if len(one)]
    sizes = np.array([float(added[one].double().square().sum()) for one in bins]).clip(1e-30)
    fits = np.array([float((added[one].double() * wanted[one]).sum()) for one in bins])
    factors = isotonic_regression(fits / sizes, weights=sizes).x.clip(0, _LARGEST_FACTOR)
    return LikenessGate(
        centroids=centroids,
        likeness=torch.stack([likeness[one].mean() for one in bins]),
        factors=torch.from_numpy(factors).float(),
    )


def _without_clusters(
    contexts: Tensor, moved: Tensor, clusters: RowClusters, strength: float
) -> Tensor:
    """(n, E, K, R), the prediction of each row without its cluster and its group of sites.

    The maps come from the normal equations of what is left, by taking sums away.
    """
    x, y, labels = contexts.double(), moved.double(), clusters.labels
    folds = [torch.arange(start, len(x), _FOLDS) for start in range(min(_FOLDS, len(x)))]
    left = [_sums(x[fold].flatten(0, 2), y[fold].flatten(0, 2)) for fold in folds]
    total = torch.stack(left).sum(0)
    ridge = strength * torch.eye(x.shape[3], dtype=x.dtype)
    strange = torch.zeros_like(x)
    for cluster in range(len(clusters.centroids)):
        own = [labels[fold] == cluster for fold in folds]
        sums = [_sums(x[fold][mask], y[fold][mask]) for fold, mask in zip(folds, own, strict=True)]
        elsewhere = total - torch.stack(sums).sum(0)
        for fold, mask, all_rows, own_rows in zip(folds, own, left, sums, strict=True):
            if bool(mask.any()):
                xx, xy = elsewhere - all_rows + own_rows
                # There are far fewer rows than outputs, and the system is symmetric.
                made = torch.linalg.solve(xx + ridge, x[fold][mask].T).T @ xy
                strange[fold[mask.nonzero()[:, 0]], *mask.nonzero()[:, 1:].T] = made
    return strange.to(contexts.dtype)


def _sums(x: Tensor, y: Tensor) -> Tensor:
    """(2, R, R), XᵀX and XᵀY."""
    return torch.stack([x.T @ x, x.T @ y])


def _likeness_without_clusters(expected: Tensor, clusters: RowClusters) -> Tensor:
    """(n, E), the likeness of records to known classes, each row's own cluster apart."""
    cosines = functional.normalize(expected, dim=3) @ clusters.centroids.T
    cosines.scatter_(3, clusters.labels[..., None], -1.0)
    return _over_present(cosines.amax(3), expected)
