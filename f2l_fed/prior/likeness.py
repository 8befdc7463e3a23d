"""The likeness gate: how far a prior is trusted, by how like a site's classes are to known ones.

The map of the output rows is a memory of classes. For classes that other sites have it adds much
to what a site's few examples say; for classes that nobody has it adds what others' classes would
have needed. How like a site's classes are to known ones can be told without names of classes: by
the cosines between its expected rows and the centroids of clusters of the rows that were fitted.
What the map adds is multiplied by a factor that grows with this likeness.

The factors are learnt from the records. Sites are predicted twice: without their own records, as a
new site of known classes would be, and without every row of their classes at other sites as well,
as a site whose classes nobody has. Only centroids belong to the release, no row of a site.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

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

_STRANGERS, _PAIRS, _OTHERS = 32, 4, 400
"""Sites that are predicted as strangers, pairs of a site, and sites that maps for them come from:
a map of its own for each of them costs more than everything else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LikenessGate:
    """Factors on what a map adds to the rows of a site, by likeness.

    Args:
        centroids: (m, R) float32, of unit length; (0, 0) for a gate that lets everything through.
        likeness: (b,) float32, in ascending order.
        factors: (b,) float32, the factors at these; linear between, constant beyond.
        length: () float32, the usual length of a context's rows; 0 if it is not known.
    """

    centroids: Tensor
    likeness: Tensor
    factors: Tensor
    length: Tensor = field(default_factory=lambda: torch.zeros(()))

    @classmethod
    def open(cls) -> LikenessGate:
        """The gate that lets everything through."""
        nothing = torch.zeros(0)
        return cls(centroids=torch.zeros(0, 0), likeness=nothing, factors=nothing)

    def __call__(self, contexts: Tensor, added: Tensor) -> Tensor:
        """The factors of n sites.

        A context of fewer examples than those that the gate was fitted on is shorter. It says less
        of what its classes are like, and needs the map more, so that the factor is nearer to 1.

        Args:
            contexts: (n, K, R) float, the rows of their contexts.
            added: (n, K, R) float, what the map adds to them.

        Returns:
            (n,) float.
        """
        if not len(self.centroids):
            return contexts.new_ones(len(contexts))
        return self.factors_of(contexts, mean_likeness(contexts + added, self.centroids))

    def with_shared_centroids(
        self, rows: Tensor, fewest: int, *, anew: bool = False
    ) -> LikenessGate:
        """The gate with centroids of rows of at least so many sites each.

        A cluster of fewer is joined to the one that is nearest by direction, and one that no site
        has a row in is left out: the centroid of one site's rows would be nearly a row of its own.

        Args:
            rows: (n, E, K, R) float32, rows of the heads of at least ``fewest`` sites.
            fewest: Smallest number of sites with a row in a cluster.
            anew: Make all centroids from these rows, since others were erased that they were made
                from.
        """
        if not len(self.centroids):
            return self
        units, there = functional.normalize(rows, dim=3), row_is_present(rows)
        hot = functional.one_hot((units @ self.centroids.T).argmax(3), len(self.centroids))
        hot = hot * there[..., None]
        sums = torch.einsum("nekm,nekr->mr", hot.to(units.dtype), units)
        members = hot.sum((1, 2)) > 0
        known = members.any(0)
        sums, members = sums[known], members[:, known]
        centroids = functional.normalize(sums, dim=1) if anew else self.centroids[known]
        while len(sums) > 1 and int((sites := members.sum(0)).min()) < fewest:
            lone = int(sites.argmin())
            cosines = centroids @ centroids[lone]
            cosines[lone] = -torch.inf
            near, left = int(cosines.argmax()), torch.arange(len(sums)) != lone
            sums[near] += sums[lone]
            members[:, near] |= members[:, lone]
            centroids[near] = functional.normalize(sums[near], dim=0)
            sums, members, centroids = sums[left], members[:, left], centroids[left]
        return replace(self, centroids=centroids)

    def factors_of(self, contexts: Tensor, likeness: Tensor) -> Tensor:
        """The factors of (…, K, R) contexts at a likeness, (…); the shorter, the nearer to 1."""
        factors = self.factors_at(likeness)
        if not self.length:
            return factors
        return 1 + (factors - 1) * (_row_length(contexts) / self.length).clamp(max=1)

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


def _row_length(rows: Tensor) -> Tensor:
    """(…, K, R) rows to (…), the mean length of those that a site has."""
    return _over_present(rows.norm(dim=-1), rows)


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
            mean_likeness(expected, centroids)
            for expected, centroids in zip(
                contexts + held_out, clusters.centroids_without_each(), strict=True
            )
        ]
    )
    strangers, pairs = _chosen(len(contexts), _STRANGERS), _chosen(contexts.shape[1], _PAIRS)
    moved = weights - contexts
    strange = _as_strangers(contexts, moved, clusters, strangers, pairs, strength)

    def of_chosen(values: Tensor) -> Tensor:
        return values[strangers][:, pairs]

    unfamiliar = _likeness_to_others(of_chosen(contexts) + strange, clusters, strangers)
    gate = _gate(
        torch.stack([of_chosen(familiar), unfamiliar]).flatten(),
        torch.stack([of_chosen(held_out), strange]).flatten(0, 2),
        of_chosen(moved).expand(2, *strange.shape).flatten(0, 2),
        clusters.centroids,
    )
    gate = replace(gate, length=_row_length(contexts).median())
    return GateFit(gate=gate, held_out=gate.factors_of(contexts, familiar))


def _chosen(of: int, most: int) -> Tensor:
    """Up to so many of the numbers below ``of``, evenly spaced."""
    return torch.linspace(0, of - 1, min(of, most)).round().long()


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


def _as_strangers(
    contexts: Tensor,
    moved: Tensor,
    clusters: RowClusters,
    strangers: Tensor,
    pairs: Tensor,
    strength: float,
) -> Tensor:
    """(s, p, K, R), what maps of all others add to some sites, as if nobody had their classes.

    The rows of a head add up to zero, so that those that stay would still tell what was left out;
    centred again, they are the rows of a head for fewer classes.

    Args:
        contexts: (n, E, K, R) float32.
        moved: (n, E, K, R) float32, from contexts to weights.
        clusters: The clusters of all rows.
        strangers: (s,) int64, numbers of the sites.
        pairs: (p,) int64, numbers of their pairs, and of the others'.
        strength: λ of a map of all pairs.
    """
    sites = _chosen(len(contexts), _OTHERS)
    x, y = (values[sites][:, pairs].double() for values in (contexts, moved))
    labels, there = clusters.labels[sites][:, pairs], row_is_present(contexts[sites][:, pairs])
    share = len(sites) * len(pairs) / (len(contexts) * contexts.shape[1])
    ridge = share * strength * torch.eye(x.shape[3], dtype=x.dtype)
    strange = []
    for stranger in strangers:
        own = clusters.counts[stranger] > 0
        kept = there & ~own[labels] & (sites != stranger)[:, None, None]
        left, right = (_centred(values, kept)[kept] for values in (x, y))
        asked = contexts[stranger][pairs].double()
        # There are far fewer rows than outputs, and the system is symmetric.
        solved = torch.linalg.solve(left.T @ left + ridge, asked.flatten(0, 1).T)
        strange.append((solved.T @ left.T @ right).view_as(asked))
    return torch.stack(strange).to(contexts.dtype)


def _centred(rows: Tensor, kept: Tensor) -> Tensor:
    """(…, K, R) rows less the mean of those of a head that are kept, (…, K) bool."""
    weights = kept.to(rows.dtype)[..., None]
    return rows - (rows * weights).sum(-2, keepdim=True) / weights.sum(-2, keepdim=True).clamp(
        min=1
    )


def _likeness_to_others(expected: Tensor, clusters: RowClusters, sites: Tensor) -> Tensor:
    """(s, p), the likeness of (s, p, K, R) rows to the clusters that their sites have no row in."""
    cosines = functional.normalize(expected, dim=3) @ clusters.centroids.T
    own = (clusters.counts[sites] > 0)[:, None, None]
    return _over_present(cosines.masked_fill(own, -1.0).amax(3), expected)
