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


def finite(case: Evidence) -> Iterator[Finding]:
    """Numbers that are not finite, or nothing but zeros as a probe.

    Updates too: starts are made from probes, and of huge ones nothing finite is.
    """
    one = case.submission
    for code, parts in (
        ("not-finite", (one.weights, one.updates)),
        ("probe-not-finite", (one.probes,)),
    ):
        # Squares that overflow would be lengths that can't be compared; with room, since others
        # sum them up in float32 and in an order of their own.
        finite = [part.double().square().sum(dim=1) < _LARGEST_SQUARE for part in parts]
        if odd := int((~torch.stack(finite).all(dim=0)).sum()):
            yield Finding(code=code, action="reject", figures={"networks": float(odd)})
    if not bool(one.probes.any(dim=1).all()):
        yield Finding(code="empty-probe", action="reject")


def changed(case: Evidence) -> Iterator[Finding]:
    """A network that is what was sent, or almost: its start or another one of them."""
    one = case.submission
    moved, length = one.updates.norm(dim=1), one.starts.norm(dim=1)
    least = float((moved / length.clamp(min=1e-12)).min())
    if least <= _UNCHANGED:
        figures = {"share": least, "least": _UNCHANGED}
        yield Finding(code="unchanged", action="reject", figures=figures)
    elif one.others is not None and len(one.others):
        away = torch.cdist(one.weights, one.others, compute_mode="donot_use_mm_for_euclid_dist")
        # Among the others may be the start itself, from which the network is as far as it moved.
        share = float((away.amin(dim=1) / moved).min())
        if share < case.config.copy:
            figures = {"share": share, "least": case.config.copy}
            yield Finding(code="sent-back", action="reject", figures=figures)


def function(case: Evidence) -> Iterator[Finding]:
    """Outputs on synthetic inputs that explode, or that are the same for all of them."""
    level = float(case.outputs.abs().max().nan_to_num(torch.inf))
    if not level <= _TOO_LARGE:
        figures = {"output": level, "most": _TOO_LARGE}
        yield Finding(code="exploding", action="reject", figures=figures)
        return
    spread = float(case.spread.exp().min())
    scale = max(1.0, float(_level(case.outputs)))
    if spread < _CONSTANT * scale:
        figures = {"spread": spread, "least": _CONSTANT * scale}
        yield Finding(code="constant", action="reject", figures=figures)


def _level(outputs: Tensor) -> Tensor:
    return outputs.double().square().mean().sqrt()
