"""The prior around a network that all sites share: how a site's network differs from the mean.

The shared network is the best guess where a context tells nothing, and with shared labels it often
tells nothing: the label mix is in a site's own bias. So the map has no intercept of its own, and it
is taken only if it predicts networks of sites that it was fitted without better than their mean.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from f2l_fed.core.dense_tensors import require_finite_rows
from f2l_fed.matrices.blocks import blocks
from f2l_fed.matrices.columns import Stored
from f2l_fed.matrices.workspace import IN_MEMORY, Workspace
from f2l_fed.prior.linear_prior import Prior, PriorFit
from f2l_fed.prior.ridge import fit_ridge
from f2l_fed.prior.ridge_map import RidgeMap
from f2l_fed.symmetry.output_permutation import OutputSymmetry

_LEAST_GAIN = 0.02
"""Smallest share of the squared distances of left-out sites that the map must save."""

_STANDARD_ERRORS = 2.0
"""How clearly the map must be better than none, in standard errors over sites."""


def fit_around(
    contexts: Tensor,
    weights: Tensor,
    symmetry: OutputSymmetry,
    anchor: Tensor,
    around: Tensor,
    work: Workspace = IN_MEMORY,
) -> PriorFit:
    """Fits the prior around a shared network.

    Args:
        contexts: (n, E, D) float32, E contexts of each of n >= 2 sites.
        weights: (n, E, D) float32, the network that belongs to each.
        symmetry: Without symmetry of the outputs, since labels are shared.
        anchor: (D,) float32, where the contexts start.
        around: (D,) float32, the shared network.
        work: Where what is as large as the records lies, and who works on parts of them.

    Raises:
        UsageError: If a tensor is of another kind or shape, or not finite.
    """
    require_finite_rows(2, anchor, contexts=contexts, weights=weights)
    sites, episodes, size = weights.shape
    updates = Stored(weights.flatten(0, 1), row=around)
    fit = fit_ridge(contexts.flatten(0, 1), updates, group=episodes, standard_errors=1, work=work)
    held_out = fit.held_out(updates, work=work).view_as(weights)
    gained = torch.zeros(sites, dtype=torch.float64)
    total = 0.0
    for some in blocks(sites * episodes, size):
        missed = weights[..., some] - around[some]
        of_site = missed.mean(1)
        of_others = ((of_site.sum(0) - of_site) / (sites - 1))[:, None]
        wanted = missed - of_others
        held_out[..., some] -= of_others
        gains = wanted.square() - (wanted - held_out[..., some]).square()
        gained += gains.flatten(1).double().sum(1)
        total += float(wanted.double().square().sum())
    gain, noise = float(gained.mean()), float(gained.std()) / sites**0.5
    clear = gain > max(_LEAST_GAIN * total / sites, _STANDARD_ERRORS * noise)
    nothing = torch.zeros(0)
    empty = RidgeMap(
        x_mean=nothing, y_mean=nothing, left=torch.zeros(0, 0), right=torch.zeros(0, 0)
    )
    mapped = replace(fit.map, y_mean=torch.zeros_like(fit.map.y_mean))
    if not clear:
        mapped = replace(mapped, left=mapped.left[:, :0], right=mapped.right[:0])
        held_out.zero_()
    # Of its own, for a file takes no tensor twice.
    apart = around.clone()
    held_out += around
    prior = Prior(symmetry=symmetry, anchor=anchor, common=mapped, rows=empty, around=apart)
    return PriorFit(
        prior=prior,
        held_out=held_out,
        common=fit,
        rows=None,
        factors=torch.ones(sites, episodes),
    )
