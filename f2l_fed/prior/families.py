"""Families: the groups of networks in a mixed fleet, each of which has a prior of its own.

Networks of different basins, or of unlike kinds of sites, have no mean worth anything, and one
linear map for all of them goes half-way between them. A family is a cluster of networks by what no
permutation of the outputs changes; `f2l_fed.prior.family_search` decides how many there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from f2l_fed.matrices.blocks import blocks
from f2l_fed.matrices.workspace import IN_MEMORY, Workspace
from f2l_fed.prior.compact_records import compact_records
from f2l_fed.prior.family_search import (
    FEWEST_SITES,
    by_size,
    groups_of,
    membership_of,
    search,
    shares_of,
)
from f2l_fed.prior.linear_prior import PriorFit, fit_prior
from f2l_fed.prior.ridge_map import RidgeMap
from f2l_fed.symmetry.output_permutation import OutputSymmetry

_MOST_SITES = 1024
"""Sites, or records of large networks, among which families are looked for."""

_OF_MEAN = 64
"""Sites of a family that its mean is taken of, where others are joined to it by their distance."""


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
        return shares_of(self.map(self.symmetry.split(contexts).common))


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
    work: Workspace = IN_MEMORY,
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
        work: Where the priors of families lie, and who works on parts of the records.
    """
    if most < 2 or len(weights) < 2 * FEWEST_SITES:
        return None
    if len(weights) > _most_sites(contexts):
        labels = _found_in_sample(contexts, weights, symmetry, anchor, most, work)
    else:
        labels = search(compact_records(contexts, weights, symmetry, one, work), most)
    if labels is None:
        return None
    groups = groups_of(labels)
    priors = [_prior_of(rows, contexts, weights, symmetry, anchor, work) for rows in groups]
    membership, left_out = membership_of(contexts, labels, symmetry)
    return Families(
        labels=labels,
        shares=FamilyShares(symmetry=symmetry, map=membership),
        priors=tuple(priors),
        held_out=_as_new(contexts, groups, priors, _likeliest(left_out, labels), work),
    )


def _most_sites(contexts: Tensor) -> int:
    """Sites among which families are looked for; where there are more, some at random.

    Where networks are larger than records are many, the records count.
    """
    sites, episodes, size = contexts.shape
    wide = size > 2 * min(sites, _MOST_SITES) * episodes
    return _MOST_SITES // episodes if wide else _MOST_SITES


def _prior_of(
    rows: Tensor,
    contexts: Tensor,
    weights: Tensor,
    symmetry: OutputSymmetry,
    anchor: Tensor,
    work: Workspace,
) -> PriorFit:
    """The prior fitted on some of the sites."""
    given, networks = (taken(some, rows, work) for some in (contexts, weights))
    fit = fit_prior(given, networks, symmetry, anchor, work=work)
    for one in (given, networks):
        work.free(one)
    return fit


def _found_in_sample(
    contexts: Tensor,
    weights: Tensor,
    symmetry: OutputSymmetry,
    anchor: Tensor,
    most: int,
    work: Workspace,
) -> Tensor | None:
    """The families found among some of the sites; the others belong to the nearest mean."""
    shuffled = torch.randperm(len(weights), generator=torch.Generator().manual_seed(0))
    some = shuffled[: _most_sites(contexts)].sort().values
    given, networks = (taken(one, some, work) for one in (contexts, weights))
    fit = fit_prior(given, networks, symmetry, anchor, work=work)
    labels = search(compact_records(given, networks, symmetry, fit, work), most)
    for one in (given, networks, fit.held_out):
        work.free(one)
    if labels is None:
        return None
    groups = [some[own] for own in groups_of(labels)]
    means = symmetry.split(torch.stack([_mean(weights, own[:_OF_MEAN]) for own in groups])).common
    near = torch.empty(len(weights), dtype=torch.int64)
    for rows in blocks(weights[0].numel(), len(weights)):
        common = symmetry.split(weights[rows].mean(1)).common
        near[rows] = torch.cdist(common, means).argmin(1)
    if int(near.bincount(minlength=len(groups)).min()) < FEWEST_SITES:
        return None
    return by_size(near)


def _mean(weights: Tensor, rows: Tensor) -> Tensor:
    """(D,), the mean network of some sites."""
    total = torch.zeros(weights.shape[2])
    for row in rows.tolist():
        total += weights[row].mean(0)
    return total / len(rows)


def taken(some: Tensor, rows: Tensor, work: Workspace) -> Tensor:
    """(m, E, D), the records of some sites."""
    taken = work.empty(len(rows), *some.shape[1:])
    for place, row in enumerate(rows.tolist()):
        taken[place] = some[row]
    return taken


def _likeliest(left_out: Tensor, labels: Tensor) -> Tensor:
    """(n, E) int64, the likeliest family of each record without those of its site.

    The families keep their sizes: without one of its sites the own family is a little rarer than
    the others, and where contexts say nothing none would be told to be of its own.
    """
    hot = functional.one_hot(labels).float()
    rarer = (hot - hot.mean(0)) / (len(hot) - 1)
    return (left_out + rarer[:, None]).argmax(2)


def _as_new(
    contexts: Tensor,
    groups: list[Tensor],
    priors: list[PriorFit],
    chosen: Tensor,
    work: Workspace,
) -> Tensor:
    """(n, E, D), the prediction for each context by the prior of its (n, E) chosen family."""
    expected = work.empty(*contexts.shape)
    place = {site: spot for rows in groups for spot, site in enumerate(rows.tolist())}
    own = {site: family for family, rows in enumerate(groups) for site in rows.tolist()}
    for site, families in enumerate(chosen.tolist()):
        for episode, family in enumerate(families):
            fit = priors[family]
            expected[site, episode] = (
                fit.held_out[place[site], episode]
                if own[site] == family
                else fit.prior(contexts[site, episode][None])[0]
            )
    return expected
