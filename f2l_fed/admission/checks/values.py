"""Checks of the numbers in the tensors, without any comparison with other sites."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from f2l_fed.admission.evidence import Evidence
from f2l_fed.admission.verdict import Finding

# Of the start's length: less than rounding leaves behind in one step of any use.
_UNCHANGED = 1e-6
_TOO_LARGE = 1e4
_CONSTANT = 1e-4
_LARGEST_SQUARE = torch.finfo(torch.float32).max / 16


def finite(evidence: Evidence) -> Iterator[Finding]:
    """Finds numbers that are not finite, and probes of nothing but zeros.

    Updates are checked too: starts are made from probes, and of huge ones nothing finite is.
    """
    one = evidence.submission
    for code, parts in (
        ("not-finite", (one.weights, one.updates)),
        ("probe-not-finite", (one.probes,)),
    ):
        # Squares that overflow would be lengths that can't be compared; with a margin, since
        # others sum them up in float32 and in an order of their own.
        sound = [part.double().square().sum(dim=1) < _LARGEST_SQUARE for part in parts]
        if count := int((~torch.stack(sound).all(dim=0)).sum()):
            yield Finding(code=code, action="reject", figures={"networks": float(count)})
    if not bool(one.probes.any(dim=1).all()):
        yield Finding(code="empty-probe", action="reject")


def changed(evidence: Evidence) -> Iterator[Finding]:
    """Finds networks that are, or almost are, the start or another one that was sent."""
    one = evidence.submission
    moved, length = one.updates.norm(dim=1), one.starts.norm(dim=1)
    smallest = float((moved / length.clamp(min=1e-12)).min())
    if smallest <= _UNCHANGED:
        figures = {"share": smallest, "min_allowed": _UNCHANGED}
        yield Finding(code="unchanged", action="reject", figures=figures)
    elif one.others is not None and len(one.others):
        distances = torch.cdist(
            one.weights, one.others, compute_mode="donot_use_mm_for_euclid_dist"
        )
        # Among the others may be the start itself, from which the network is as far as it moved.
        share = float((distances.amin(dim=1) / moved).min())
        if share < evidence.config.copy:
            figures = {"share": share, "min_allowed": evidence.config.copy}
            yield Finding(code="sent-back", action="reject", figures=figures)


def outputs(evidence: Evidence) -> Iterator[Finding]:
    """Finds outputs on synthetic inputs that explode, or that are the same for all of them."""
    largest = float(evidence.outputs.abs().max().nan_to_num(torch.inf))
    if not largest <= _TOO_LARGE:
        figures = {"output": largest, "max_allowed": _TOO_LARGE}
        yield Finding(code="exploding", action="reject", figures=figures)
        return
    spread = float(evidence.spread.exp().min())
    limit = _CONSTANT * max(1.0, float(_root_mean_square(evidence.outputs)))
    if spread < limit:
        figures = {"spread": spread, "min_allowed": limit}
        yield Finding(code="constant", action="reject", figures=figures)


def _root_mean_square(values: Tensor) -> Tensor:
    return values.double().square().mean().sqrt()
