"""Families: the groups of networks in a mixed fleet, each of which has a prior of its own.

Networks of different basins, or of unlike kinds of sites, have no mean worth anything, and one
linear map for all of them goes half-way between them. A family is a cluster of networks by what no
permutation of the outputs changes. How many there are is decided by the integrated completed
likelihood of records that the priors have not seen: the likelihood of a site's family, given its
context, times that of its network, given its family and context. A division that is none costs
more by the first factor, and by the records that its smaller families lack, than it gains.
One that holds of networks, but of which contexts say nothing, neither the family nor what differs
within it, serves no new site: the guess of a family would be worse than the mean of all.

Reference:
    Biernacki, Celeux, Govaert: Assessing a mixture model for clustering with the integrated
    completed likelihood. IEEE Transactions on Pattern Analysis and Machine Intelligence 22, 2000.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor
from torch.nn import functional

from f2l_fed.matrices.columns import Stored
from f2l_fed.prior.linear_prior import PriorFit, fit_prior
from f2l_fed.prior.ridge import fit_ridge
from f2l_fed.prior.ridge_map import RidgeMap
from f2l_fed.symmetry.common_part import CommonPart
from f2l_fed.symmetry.output_permutation import OutputSymmetry

_FEWEST_SITES = 8
"""Sites of a family; fewer are no ground for a prior."""

_MOST_SITES = 1024
"""Sites among which families are looked for; where there are more, some at random."""

_DIRECTIONS = 32
"""Most principal directions of the networks in which their likelihood is taken."""

_LEAST_GAIN = 3.0
"""Logarithm of the factor by which the records of a divided family's sites become likelier.

Sites of one basin with two kinds of images gain up to 2.4, and are predicted no better for it: one
prior tells these apart by their contexts. Basins gain 5 and more.
"""

_LEAST_TOLD = 0.1
"""Logarithm of the factor by which contexts make the records of a division likelier.

Contexts of noise give up to 0.02, those of basins that they don't tell apart 1.9.
"""

_MOST_IN_VAIN = 3
"""Divisions in a row without a gain, after which no further one is tried."""

_LEAST_SHARE = 1e-3
"""Of a family that a context speaks against."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyShares:
    """The shares of the families, given a context: a regression of membership on it.

    Args:
        symmetry: Coordinates of the contexts; their common part counts.
        map: (C,) -> (m,).
    """

    symmetry: OutputSymmetry
    map: RidgeMap

    def __call__(self, contexts: Tensor) -> Tensor:
        """(n, D) probe updates to (n, m) float32, positive with sum 1."""
        return _shares(self.map(self.symmetry.split(contexts).common))


@dataclass(frozen=True, slots=True, kw_only=True)
class Families:
    """The families of some sites' networks.

    Args:
        labels: (n,) int64, the family of each site, the largest being 0.
        shares: Of the families, given a context.
        priors: For each family, the prior fitted on its sites, in their order.
        held_out: (n, E, D) float32, each record predicted as that of a new site is: by the prior
            of the family that is the likeliest given its context, where both the likelihood and
            the prior are fitted without the records of its site.
    """

    labels: Tensor
    shares: FamilyShares
    priors: tuple[PriorFit, ...]
    held_out: Tensor


def find_families(
    contexts: Tensor,
    weights: Tensor,
    symmetry: OutputSymmetry,
    anchor: Tensor,
    one: PriorFit,
    *,
    most: int,
) -> Families | None:
    """The families of some sites' networks; None where one prior predicts them no worse.

    Neither are there any where contexts say nothing of a network, not even within its family.

    Args:
        contexts: (n, E, D) float32, E probe updates of each site.
        weights: (n, E, D) float32, the network that belongs to each.
        symmetry: Coordinates of the priors.
        anchor: (D,) float32, where the probes start.
        one: The prior fitted on all of them.
        most: Largest number of families.
    """
    if most < 2 or len(weights) < 2 * _FEWEST_SITES:
        return None
    if len(weights) > _MOST_SITES:
        return _found_in_sample(contexts, weights, symmetry, anchor, most)
    directions = _principal_directions(symmetry.split(weights.mean(1)).common)

    def likelihood(of: Tensor, expected: Tensor) -> Tensor:
        missed = symmetry.split((of - expected).flatten(0, 1)).common @ directions
        return _log_likelihood(missed.view(*of.shape[:2], -1))

    found, best = None, likelihood(weights, one.held_out)
    before, in_vain = torch.zeros(len(weights), dtype=torch.int64), 0
    for labels in _divisions(symmetry.split(weights.mean(1)).common, most):
        groups = _groups(labels)
        if len(groups[-1]) < _FEWEST_SITES or in_vain == _MOST_IN_VAIN:
            continue
        membership, left_out = _membership(contexts, labels, symmetry)
        shares = _shares(left_out)
        score = shares[torch.arange(len(labels)), :, labels].double().log().mean(1)
        untold = ((labels.bincount()[labels] - 1).double() / (len(labels) - 1)).log()
        priors = []
        for rows in groups:
            own = weights[rows]
            priors.append(fit_prior(contexts[rows], own, symmetry, anchor))
            score[rows] += likelihood(own, priors[-1].held_out)
            untold[rows] += likelihood(own, _means_of_others(own))
        gained = _exceeds((score - best)[_divided(before, labels)], _LEAST_GAIN)
        in_vain += 1
        if gained and _exceeds(score - untold, _LEAST_TOLD):
            found = _families(contexts, labels, membership, left_out, priors, symmetry)
            best, before, in_vain = score, labels, 0
    return found


def _found_in_sample(
    contexts: Tensor, weights: Tensor, symmetry: OutputSymmetry, anchor: Tensor, most: int
) -> Families | None:
    """The families found among some of the sites; the others belong to the nearest mean."""
    shuffled = torch.randperm(len(weights), generator=torch.Generator().manual_seed(0))
    some = shuffled[:_MOST_SITES].sort().values
    one = fit_prior(contexts[some], weights[some], symmetry, anchor)
    found = find_families(contexts[some], weights[some], symmetry, anchor, one, most=most)
    if found is None:
        return None
    rows = symmetry.split(weights.mean(1)).common
    means = torch.stack([rows[some[own]].mean(0) for own in _groups(found.labels)])
    labels = _by_size(torch.cdist(rows, means).argmin(1))
    priors = [fit_prior(contexts[own], weights[own], symmetry, anchor) for own in _groups(labels)]
    membership = _membership(contexts, labels, symmetry)
    return _families(contexts, labels, *membership, priors, symmetry)


def _families(
    contexts: Tensor,
    labels: Tensor,
    membership: RidgeMap,
    left_out: Tensor,
    priors: list[PriorFit],
    symmetry: OutputSymmetry,
) -> Families:
    return Families(
        labels=labels,
        shares=FamilyShares(symmetry=symmetry, map=membership),
        priors=tuple(priors),
        held_out=_as_new(contexts, _groups(labels), priors, _likeliest(left_out, labels)),
    )


def _groups(labels: Tensor) -> list[Tensor]:
    """The sites of each family."""
    return [(labels == family).nonzero()[:, 0] for family in range(int(labels.max()) + 1)]


def _by_size(labels: Tensor) -> Tensor:
    """The same labels, numbered by falling size."""
    order = labels.bincount().argsort(descending=True, stable=True)
    return order.argsort()[labels]


def _exceeds(values: Tensor, least: float) -> bool:
    """Whether the mean of (n,) values is above a limit and two standard errors."""
    error: float = float(values.std()) / len(values) ** 0.5
    return float(values.mean()) > max(least, 2 * error)


def _means_of_others(rows: Tensor) -> Tensor:
    """(n, 1, D), for each site of (n, E, D) rows the mean of all others."""
    means = rows.mean(1, keepdim=True)
    return (means.sum(0) - means) / (len(rows) - 1)


def _likeliest(left_out: Tensor, labels: Tensor) -> Tensor:
    """(n, E) int64, the likeliest family of each record without those of its site.

    The families keep their sizes: without one of its sites the own family is a little rarer than
    the others, and where contexts say nothing none would be told to be of its own.
    """
    hot = functional.one_hot(labels).float()
    rarer = (hot - hot.mean(0)) / (len(hot) - 1)
    return (left_out + rarer[:, None]).argmax(2)


def _as_new(
    contexts: Tensor, groups: list[Tensor], priors: list[PriorFit], chosen: Tensor
) -> Tensor:
    """(n, E, D), the prediction for each context by the prior of its (n, E) chosen family."""
    expected = torch.empty_like(contexts)
    for family, (rows, fit) in enumerate(zip(groups, priors, strict=True)):
        by_family = fit.prior(contexts.flatten(0, 1)).view_as(contexts)
        by_family[rows] = fit.held_out
        expected = torch.where((chosen == family)[..., None], by_family, expected)
    return expected


def _divided(before: Tensor, labels: Tensor) -> Tensor:
    """(n,) bool, the sites whose family is another set of sites than it was."""
    was, now = (one[:, None] == one for one in (before, labels))
    return (was != now).any(1)


def _membership(
    contexts: Tensor, labels: Tensor, symmetry: OutputSymmetry
) -> tuple[RidgeMap, Tensor]:
    """The regression of membership on contexts, and its (n, E, m) held-out values."""
    hot = functional.one_hot(labels).float().repeat_interleave(contexts.shape[1], 0)
    common = CommonPart(Stored(contexts.flatten(0, 1)), symmetry)
    fit = fit_ridge(common, hot, group=contexts.shape[1])
    return fit.map, fit.held_out(hot).view(*contexts.shape[:2], -1)


def _shares(values: Tensor) -> Tensor:
    return functional.normalize(values.clamp(min=_LEAST_SHARE), p=1, dim=-1)


def _divisions(rows: Tensor, most: int) -> Iterator[Tensor]:
    """(n,) int64 labels by falling size for 2, 3, … clusters of (n, C) rows."""
    rows = rows.double() - rows.double().mean(0)
    gram = rows @ rows.T
    squares = gram.diagonal()
    distances = (squares[:, None] + squares - 2 * gram).clamp(min=0).sqrt().fill_diagonal_(0)
    tree = linkage(squareform(distances.numpy(), checks=False), "ward")
    for number in range(2, min(most, len(rows) // _FEWEST_SITES) + 1):
        labels = torch.from_numpy(fcluster(tree, number, "maxclust").astype(np.int64)) - 1
        yield _by_size(labels)


def _principal_directions(rows: Tensor) -> Tensor:
    """(C, q) float32, orthonormal columns."""
    rows = rows - rows.mean(0)
    number = max(1, min(_DIRECTIONS, len(rows) // 4))
    values, vectors = torch.linalg.eigh((rows @ rows.T).double())
    values, vectors = values[-number:], vectors[:, -number:]
    kept = values > values[-1].clamp(min=1e-300) * 1e-9
    directions: Tensor = rows.T.double() @ vectors[:, kept] / values[kept].sqrt()
    return directions.float()


def _log_likelihood(errors: Tensor) -> Tensor:
    """(n,) float64, of (n, E, q) held-out errors under normals as wide as those of the others."""
    square = errors.double().square()
    total, (sites, episodes, _) = square.sum((0, 1)), square.shape
    others = (total - square.sum(1)) / max(1, (sites - 1) * episodes)
    others = others.clamp(min=1e-12 * float(total.max()) + 1e-300)[:, None]
    density: Tensor = -0.5 * (square / others + others.log())
    return density.sum(2).mean(1)
