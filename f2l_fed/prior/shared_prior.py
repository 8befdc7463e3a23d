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
from f2l_fed.prior.linear_prior import Prior, PriorFit
from f2l_fed.prior.ridge import fit_ridge
from f2l_fed.prior.ridge_map import RidgeMap
from f2l_fed.symmetry.output_permutation import OutputSymmetry

_LEAST_GAIN = 0.02
"""Smallest share of the squared distances of left-out sites that the map must save."""

_STANDARD_ERRORS = 2.0
"""How clearly the map must be better than none, in standard errors over sites."""


def fit_around(
    contexts: Tensor, weights: Tensor, symmetry: OutputSymmetry, anchor: Tensor, around: Tensor
) -> PriorFit:
    """Fits the prior around a shared network.

    Args:
        contexts: (n, E, D) float32, E contexts of each of n >= 2 sites.
        weights: (n, E, D) float32, the network that belongs to each.
        symmetry: Without symmetry of the outputs, since labels are shared.
        anchor: (D,) float32, where the contexts start.
        around: (D,) float32, the shared network.

    Raises:
        UsageError: If a tensor is of another kind or shape, or not finite.
    """
    require_finite_rows(2, anchor, contexts=contexts, weights=weights)
    sites, episodes, size = weights.shape
    rows = weights.flatten(0, 1)
    fit = fit_ridge(contexts.flatten(0, 1), rows - around, group=episodes, standard_errors=1)
    of_site = (weights - around).mean(1)
    of_others = (of_site.sum(0) - of_site) / (sites - 1)
    held_out = fit.held_out.view(sites, episodes, size) - of_others[:, None]
    wanted = weights - around - of_others[:, None]
    gains = (wanted.square() - (wanted - held_out).square()).flatten(1).double().sum(1)
    gain, noise = float(gains.mean()), float(gains.std()) / sites**0.5
    least = _LEAST_GAIN * float(wanted.double().square().sum()) / sites
    clear = gain > max(least, _STANDARD_ERRORS * noise)
    nothing = torch.zeros(0)
    empty = RidgeMap(
        x_mean=nothing, y_mean=nothing, left=torch.zeros(0, 0), right=torch.zeros(0, 0)
    )
    mapped = replace(fit.map, y_mean=torch.zeros_like(fit.map.y_mean))
    if not clear:
        mapped = replace(mapped, left=mapped.left[:, :0], right=mapped.right[:0])
        held_out = torch.zeros_like(held_out)
    # Of its own, for a file takes no tensor twice.
    apart = around.clone()
    prior = Prior(symmetry=symmetry, anchor=anchor, common=mapped, rows=empty, around=apart)
    return PriorFit(
        prior=prior,
        held_out=around + held_out,
        common=fit,
        rows=None,
        factors=torch.ones(sites, episodes),
    )
