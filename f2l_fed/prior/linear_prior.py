"""The linear prior: the expected network of a site as a linear map of its probe.

A site's probe is itself a step from the anchor towards its network, so the prior starts from
there, ``anchor + probe``, and adds a linear map of the probe in the coordinates of the output
symmetry. Without the map it is federated averaging (the anchor is the mean
network) with a few gradient steps at the site. Where heads alone are generated, a gate takes the
map back for sites whose classes are strangers (`f2l_fed.prior.likeness`).

While the anchor moves, the map is a ridge regression of the networks that came back. Once it
stays, every round adds a regression of the *updates* that came back from what the prior expected:
a gradient step for the prior by the vector-Jacobian product with the returned updates, taken
exactly, because for a linear map it is a least-squares problem. The expectation of a record never
uses that record's site, so the regression sees what a new site would see.

Reference:
    Shamsian et al.: Personalized federated learning using hypernetworks, arXiv 2103.04628 (the
    returned update as a gradient for the network that generates).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from f2l_fed.core.dense_tensors import require_finite_rows
from f2l_fed.matrices.blocks import blocks
from f2l_fed.matrices.columns import Stored
from f2l_fed.matrices.workspace import IN_MEMORY, Workspace
from f2l_fed.prior.config import PriorConfig
from f2l_fed.prior.likeness import LikenessGate, fit_gate
from f2l_fed.prior.ridge import fit_ridge
from f2l_fed.prior.ridge_fit import RidgeFit
from f2l_fed.prior.ridge_map import RidgeMap
from f2l_fed.symmetry.common_part import CommonPart, PlacedCommonPart, rows_of
from f2l_fed.symmetry.output_permutation import IsotypicParts, OutputSymmetry

_RANK = 256
"""Largest rank of the map of the common part of whole networks; most are far below."""

_FEWEST_SITES = 8
"""Sites below which a likeness gate has too little to learn from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """p(c), the conditional mean of the weights.

    Args:
        symmetry: Coordinates of the maps.
        anchor: (D,) float32, where the probes start.
        common: Map of the common part, (C,) -> (C,).
        rows: Map of every output row's deviation, (R,) -> (R,); of size 0 without symmetry.
        gate: Factors on what the map of the rows adds.
        around: (D,) float32, the network that the maps are added to; None for anchor and context.
    """

    symmetry: OutputSymmetry
    anchor: Tensor
    common: RidgeMap
    rows: RidgeMap
    gate: LikenessGate = field(default_factory=LikenessGate.open)
    around: Tensor | None = None

    def without_rows(self) -> Prior:
        """The prior that leaves the deviations of output rows as the context has them."""
        nothing = torch.zeros_like
        rows = self.rows
        return replace(
            self, rows=replace(rows, y_mean=nothing(rows.y_mean), right=nothing(rows.right))
        )

    def __call__(self, contexts: Tensor) -> Tensor:
        """(n, D) probe updates to (n, D) expected weights."""
        parts = self.symmetry.split(contexts)
        rows = self.rows(parts.rows)
        rows = rows * self.gate(parts.rows, rows)[:, None, None]
        mapped = self.symmetry.join(IsotypicParts(self.common(parts.common), rows))
        return (self.anchor + contexts if self.around is None else self.around) + mapped


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """An earlier prior with the same anchor, and what it expected of the records.

    Args:
        prior: That prior.
        expected: (n, E, D) float32, without the records of each one's own site.
    """

    prior: Prior
    expected: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorFit:
    """A fitted prior with its predictions for the records it was fitted on.

    Args:
        prior: The prior.
        held_out: (n, E, D) float32, each predicted without the records of its site.
        common: Fit of the common part, its examples in the order of the records.
        rows: Fit of the rows, K examples for each record; None without symmetry.
        factors: (n, E) float32, the gate's factors in ``held_out``.
    """

    prior: Prior
    held_out: Tensor
    common: RidgeFit
    rows: RidgeFit | None
    factors: Tensor


def fit_prior(
    contexts: Tensor,
    weights: Tensor,
    symmetry: OutputSymmetry,
    anchor: Tensor,
    *,
    gated: bool = False,
    work: Workspace = IN_MEMORY,
) -> PriorFit:
    """Fits the prior on the networks of all sites.

    Args:
        contexts: (n, E, D) float32, E probe updates of each site.
        weights: (n, E, D) float32, the network that belongs to each.
        symmetry: Coordinates to fit in.
        anchor: (D,) float32, where the probes start.
        gated: Fit a likeness gate; needs a symmetry and an anchor without output rows.
        work: Where what is as large as the records lies, and who works on parts of them.

    Raises:
        UsageError: If a tensor is of another kind or shape, or not finite.
    """
    require_finite_rows(2, anchor, contexts=contexts, weights=weights)
    # One standard error: where the score is flat, hidden layers that are a little too detailed cost
    # far more accuracy than ones that are a little too plain. Output rows show no such bias.
    contexts, weights = contexts.detach(), weights.detach()
    anchor = anchor.detach()
    starts = contexts.flatten(0, 1)
    updates = Stored(weights.flatten(0, 1), starts, anchor)
    common, rows, held_out = _regress(contexts, updates, symmetry, 1, work)
    for some in blocks(*starts.shape):
        held_out[:, some] += anchor[some] + starts[:, some]
    prior = Prior(symmetry=symmetry, anchor=anchor, common=common.map, rows=_map_of(rows))
    fit = PriorFit(
        prior=prior,
        held_out=held_out.view_as(contexts),
        common=common,
        rows=rows,
        factors=torch.ones(contexts.shape[:2]),
    )
    return with_gate(fit, contexts, weights) if gated else fit


def with_gate(fit: PriorFit, contexts: Tensor, weights: Tensor) -> PriorFit:
    """A fit with a likeness gate; its other parts stay, and all of it where sites are too few.

    Args:
        fit: By `fit_prior`, without a gate.
        contexts: (n, E, D) float32, those of the fit.
        weights: (n, E, D) float32, those of the fit.
    """
    if len(contexts) < _FEWEST_SITES:
        return fit
    symmetry, start = fit.prior.symmetry, fit.prior.anchor + contexts
    assert fit.rows is not None
    x, y, held_out = (
        symmetry.split(w.flatten(0, 1)) for w in (contexts, weights - start, fit.held_out - start)
    )
    shape = (*contexts.shape[:2], *x.rows.shape[1:])
    rows, added = x.rows.view(shape), held_out.rows.view(shape)
    found = fit_gate(rows, rows + y.rows.view(shape), added, fit.rows.strength)
    gated = (added * found.held_out[..., None, None]).flatten(0, 1)
    joined = symmetry.join(IsotypicParts(held_out.common, gated)).view_as(contexts)
    return replace(
        fit,
        prior=replace(fit.prior, gate=found.gate),
        held_out=start + joined,
        factors=found.held_out,
    )


def refine_prior(
    before: Prior,
    contexts: Tensor,
    expected: Tensor,
    weights: Tensor,
    config: PriorConfig,
    work: Workspace = IN_MEMORY,
) -> PriorFit:
    """Moves a prior by the updates that came back.

    Args:
        before: The prior that made the starts.
        contexts: (n, E, D) float32, probe updates from its anchor.
        expected: (n, E, D) float32, what was expected of each without the records of its site.
        weights: (n, E, D) float32, what the sites made of it.
        config: How far.
        work: As in `fit_prior`.
    """
    updates = Stored(weights.flatten(0, 1), expected.flatten(0, 1))
    # These are small and noisy steps of many: each takes the strength that predicts best.
    common, rows, held_out = _regress(contexts, updates, before.symmetry, 0, work)
    prior = Prior(
        symmetry=before.symmetry,
        anchor=before.anchor,
        common=before.common.plus(common.map, config.rate, _rank(before.symmetry), work),
        rows=before.rows.plus(_map_of(rows), config.rate),
    )
    return PriorFit(
        prior=prior,
        held_out=held_out.mul_(config.rate).view_as(expected).add_(expected),
        common=common,
        rows=rows,
        factors=torch.ones(contexts.shape[:2]),
    )


def _regress(
    contexts: Tensor,
    targets: Stored,
    symmetry: OutputSymmetry,
    standard_errors: float,
    work: Workspace,
) -> tuple[RidgeFit, RidgeFit | None, Tensor]:
    """The fits of both parts, and (n * E, D) held-out predictions."""
    episodes, x = contexts.shape[1], Stored(contexts.flatten(0, 1))
    targets_common = CommonPart(targets, symmetry)
    common = fit_ridge(
        CommonPart(x, symmetry),
        targets_common,
        group=episodes,
        standard_errors=standard_errors,
        rank=_rank(symmetry),
        work=work,
    )
    held_out = common.held_out(
        targets_common, work.empty(*targets.shape), PlacedCommonPart(symmetry), work
    )
    if not symmetry.classes:
        return common, None, held_out
    # The mean row of a permutation-invariant fit is zero, so there is no intercept.
    y = rows_of(targets, symmetry)
    rows = fit_ridge(
        rows_of(x, symmetry).flatten(0, 1),
        y.flatten(0, 1),
        group=episodes * symmetry.classes,
        centre=False,
        standard_errors=0,
    )
    held_out[:, symmetry.output] += rows.held_out(y.flatten(0, 1)).view_as(y)
    return common, rows, held_out


def _rank(symmetry: OutputSymmetry) -> int | None:
    """The bound on the rank of the common map: heads alone are small enough without one."""
    return None if symmetry.rows_alone else _RANK


def _map_of(rows: RidgeFit | None) -> RidgeMap:
    if rows is not None:
        return rows.map
    empty = torch.zeros(0)
    return RidgeMap(x_mean=empty, y_mean=empty, left=torch.zeros(0, 0), right=torch.zeros(0, 0))
