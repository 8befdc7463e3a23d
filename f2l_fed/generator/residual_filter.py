"""The filter of heads before a fit: least squares have no defence of their own against liars.

A site's heads are left out if they are far longer than those of most sites, or if a prior that was
fitted on the other sites is far more wrong about them than about most. Lengths are those of a row,
since sites may have different numbers of classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from f2l_fed.core.dense_tensors import require_finite_rows
from f2l_fed.prior.linear_prior import fit_prior
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.targets.head_rows import present_rows

LONG, UNEXPECTED = "its heads are too long", "its heads are far from what all others make likely"

_LONGEST = 2.0
"""Largest length of a site's heads, relative to the median."""

_LARGEST_RESIDUAL = 1.5
"""Largest distance of a site's heads from what was expected of them, relative to the median."""

_ITERATIONS = 3

_FEWEST = 4
"""Sites below which nobody can tell who is the odd one."""


def left_out_sites(contexts: Tensor, weights: Tensor, symmetry: OutputSymmetry) -> dict[int, str]:
    """The sites that a fit should do without, each with a reason.

    Args:
        contexts: (n, E, H) float32, padded heads on few examples of each of n sites.
        weights: (n, E, H) float32, heads on all of them.
        symmetry: Coordinates of the prior.

    Returns:
        Reason by number of the site; empty for fewer than four sites.
    """
    anchor = torch.zeros(contexts.shape[2])
    require_finite_rows(1, anchor, contexts=contexts, weights=weights)
    if len(contexts) < _FEWEST:
        return {}
    short = torch.ones(len(contexts), dtype=torch.bool)
    rows = present_rows(contexts.flatten(0, 1)[:, symmetry.output]).view(contexts.shape[:2]).sqrt()
    for heads in (contexts, weights):
        lengths = (heads.norm(dim=2) / rows).mean(1)
        short &= lengths <= _LONGEST * lengths.median()
    kept = short
    for _ in range(_ITERATIONS):
        if int(kept.sum()) < _FEWEST:
            break
        fit = fit_prior(contexts[kept], weights[kept], symmetry, anchor)
        expected = fit.prior(contexts.flatten(0, 1)).view_as(contexts)
        expected[kept] = fit.held_out
        residuals = ((weights - expected).norm(dim=2) / rows).mean(1)
        now = short & (residuals <= _LARGEST_RESIDUAL * residuals[kept].median())
        if bool((now == kept).all()):
            break
        kept = now
    return {
        site: UNEXPECTED if short[site] else LONG for site in (~kept).nonzero().squeeze(1).tolist()
    }
