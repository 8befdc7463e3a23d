"""The filter of heads before a fit: least squares have no defence of their own against liars.

A site's heads are left out if they are far longer than those of most sites, or if a prior that was
fitted on the other sites is far more wrong about them than about most. Lengths are those of a row,
since sites may have different numbers of classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.core.dense_tensors import require_finite_rows
from f2l_fed.prior.linear_prior import PriorFit, fit_prior
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


@dataclass(frozen=True, slots=True, kw_only=True)
class FilteredSites:
    """The outcome of the filter.

    Args:
        left_out: The sites that a fit should do without, by number, each with a reason.
        fit: The prior without a gate on all others, where the filter has made it.
    """

    left_out: dict[int, str]
    fit: PriorFit | None = None


def left_out_sites(contexts: Tensor, weights: Tensor, symmetry: OutputSymmetry) -> dict[int, str]:
    """`FilteredSites.left_out` alone; the arguments are those of `filter_sites`."""
    return filter_sites(contexts, weights, symmetry).left_out


def filter_sites(contexts: Tensor, weights: Tensor, symmetry: OutputSymmetry) -> FilteredSites:
    """Finds the sites that a fit should do without.

    Args:
        contexts: (n, E, H) float32, padded heads on few examples of each of n sites.
        weights: (n, E, H) float32, heads on all of them.
        symmetry: Coordinates of the prior.

    Returns:
        None are left out of fewer than four.
    """
    anchor = torch.zeros(contexts.shape[2])
    require_finite_rows(1, anchor, contexts=contexts, weights=weights)
    if len(contexts) < _FEWEST:
        return FilteredSites(left_out={})
    short = torch.ones(len(contexts), dtype=torch.bool)
    rows = present_rows(contexts.flatten(0, 1)[:, symmetry.output]).view(contexts.shape[:2]).sqrt()
    for heads in (contexts, weights):
        lengths = (heads.norm(dim=2) / rows).mean(1)
        short &= lengths <= _LONGEST * lengths.median()
    kept, last = short, None
    for _ in range(_ITERATIONS):
        if int(kept.sum()) < _FEWEST:
            break
        fit = fit_prior(contexts[kept], weights[kept], symmetry, anchor)
        expected = fit.prior(contexts.flatten(0, 1)).view_as(contexts)
        expected[kept] = fit.held_out
        residuals = ((weights - expected).norm(dim=2) / rows).mean(1)
        now = short & (residuals <= _LARGEST_RESIDUAL * residuals[kept].median())
        if bool((now == kept).all()):
            last = fit
            break
        kept = now
    odd = (~kept).nonzero().squeeze(1).tolist()
    left_out = {site: UNEXPECTED if short[site] else LONG for site in odd}
    return FilteredSites(left_out=left_out, fit=last)
