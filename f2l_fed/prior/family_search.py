"""The search for families: which division of some sites predicts unseen networks best.

How many there are is decided by the integrated completed likelihood of records that the priors
have not seen: the likelihood of a site's family, given its context, times that of its network,
given its family and context. A division that is none costs more by the first factor, and by the
records that its smaller families lack, than it gains. One that holds of networks, but of which
contexts say nothing, neither the family nor what differs within it, serves no new site: the guess
of a family would be worse than the mean of all.

Reference:
    Biernacki, Celeux, Govaert: Assessing a mixture model for clustering with the integrated
    completed likelihood. IEEE Transactions on Pattern Analysis and Machine Intelligence 22, 2000.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor
from torch.nn import functional

from f2l_fed.matrices.columns import Stored
from f2l_fed.prior.compact_records import CompactRecords
from f2l_fed.prior.linear_prior import fit_prior
from f2l_fed.prior.ridge import fit_ridge
from f2l_fed.prior.ridge_map import RidgeMap
from f2l_fed.symmetry.common_part import CommonPart
from f2l_fed.symmetry.output_permutation import OutputSymmetry

FEWEST_SITES = 8
"""Sites of a family; fewer are no ground for a prior."""

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


def search(records: CompactRecords, most: int) -> Tensor | None:
    """(n,) int64, the family of each site; None where one prior predicts them no worse."""
    contexts, weights, symmetry = records.contexts, records.weights, records.symmetry
    means, anchor = weights.mean(1), torch.zeros(symmetry.size)
    mix = _mix_of_principal_directions(means)
    mix = (mix / weights.shape[1]).repeat_interleave(weights.shape[1], 0)
    directions = (weights.flatten(0, 1).T.double() @ mix).float()
    best = _log_likelihood((records.missed @ mix).float().view(*weights.shape[:2], -1))

    def likelihood(of: Tensor, expected: Tensor) -> Tensor:
        return _log_likelihood((of - expected) @ directions)

    found, before = None, torch.zeros(len(weights), dtype=torch.int64)
    in_vain = 0
    for labels in _divisions(means, most):
        groups = groups_of(labels)
        if len(groups[-1]) < FEWEST_SITES or in_vain == _MOST_IN_VAIN:
            continue
        shares = shares_of(membership_of(contexts, labels, symmetry)[1])
        score = shares[torch.arange(len(labels)), :, labels].double().log().mean(1)
        untold = ((labels.bincount()[labels] - 1).double() / (len(labels) - 1)).log()
        for rows in groups:
            own = weights[rows]
            score[rows] += likelihood(
                own, fit_prior(contexts[rows], own, symmetry, anchor).held_out
            )
            untold[rows] += likelihood(own, _means_of_others(own))
        gained = _exceeds((score - best)[_divided(before, labels)], _LEAST_GAIN)
        in_vain += 1
        if gained and _exceeds(score - untold, _LEAST_TOLD):
            found = before = labels
            best, in_vain = score, 0
    return found


def groups_of(labels: Tensor) -> list[Tensor]:
    """The sites of each family, of (n,) labels."""
    return [(labels == family).nonzero()[:, 0] for family in range(int(labels.max()) + 1)]


def by_size(labels: Tensor) -> Tensor:
    """The same labels, numbered by falling size."""
    order = labels.bincount().argsort(descending=True, stable=True)
    return order.argsort()[labels]


def membership_of(
    contexts: Tensor, labels: Tensor, symmetry: OutputSymmetry
) -> tuple[RidgeMap, Tensor]:
    """The regression of membership on contexts, and its (n, E, m) held-out values."""
    hot = functional.one_hot(labels).float().repeat_interleave(contexts.shape[1], 0)
    common = CommonPart(Stored(contexts.flatten(0, 1)), symmetry)
    fit = fit_ridge(common, hot, group=contexts.shape[1], rank=hot.shape[1])
    return fit.map, fit.held_out(hot).view(*contexts.shape[:2], -1)


def shares_of(values: Tensor) -> Tensor:
    return functional.normalize(values.clamp(min=_LEAST_SHARE), p=1, dim=-1)


def _exceeds(values: Tensor, least: float) -> bool:
    """Whether the mean of (n,) values is above a limit and two standard errors."""
    error: float = float(values.std()) / len(values) ** 0.5
    return float(values.mean()) > max(least, 2 * error)


def _means_of_others(rows: Tensor) -> Tensor:
    """(n, 1, D), for each site of (n, E, D) rows the mean of all others."""
    means = rows.mean(1, keepdim=True)
    return (means.sum(0) - means) / (len(rows) - 1)


def _divided(before: Tensor, labels: Tensor) -> Tensor:
    """(n,) bool, the sites whose family is another set of sites than it was."""
    was, now = (one[:, None] == one for one in (before, labels))
    return (was != now).any(1)


def _divisions(rows: Tensor, most: int) -> Iterator[Tensor]:
    """(n,) int64 labels by falling size for 2, 3, … clusters of (n, C) rows."""
    rows = rows.double() - rows.double().mean(0)
    gram = rows @ rows.T
    squares = gram.diagonal()
    distances = (squares[:, None] + squares - 2 * gram).clamp(min=0).sqrt().fill_diagonal_(0)
    tree = linkage(squareform(distances.numpy(), checks=False), "ward")
    for number in range(2, min(most, len(rows) // FEWEST_SITES) + 1):
        labels = torch.from_numpy(fcluster(tree, number, "maxclust").astype(np.int64)) - 1
        yield by_size(labels)


def _mix_of_principal_directions(rows: Tensor) -> Tensor:
    """(n, q) float64, of which rows orthonormal principal directions of (n, C) rows are made."""
    rows = rows.double() - rows.double().mean(0)
    number = max(1, min(_DIRECTIONS, len(rows) // 4))
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    values, vectors = values[-number:], vectors[:, -number:]
    kept = values > values[-1].clamp(min=1e-300) * 1e-9
    mix: Tensor = vectors[:, kept] / values[kept].sqrt()
    return mix - mix.mean(0)


def _log_likelihood(errors: Tensor) -> Tensor:
    """(n,) float64, of (n, E, q) held-out errors under normals as wide as those of the others."""
    square = errors.double().square()
    total, (sites, episodes, _) = square.sum((0, 1)), square.shape
    others = (total - square.sum(1)) / max(1, (sites - 1) * episodes)
    others = others.clamp(min=1e-12 * float(total.max()) + 1e-300)[:, None]
    density: Tensor = -0.5 * (square / others + others.log())
    return density.sum(2).mean(1)
