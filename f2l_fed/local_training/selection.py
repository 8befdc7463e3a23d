"""The selection of a start among candidates, by their loss on a site's own examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isnan

import torch
from torch import Tensor

from f2l_fed.local_training.candidate_kinds import BLEND, group_of, is_sample
from f2l_fed.local_training.finetune import losses_of
from f2l_fed.targets.target import Target

CandidateSet = tuple[Mapping[str, Tensor], ...]
"""For each episode of a site, candidates by kind."""


def select(
    target: Target, candidates: Mapping[str, Tensor], x: Tensor, y: Tensor, *, keep: int = 1
) -> tuple[str, Tensor]:
    """The start with the lowest loss on a site's own examples.

    Args:
        target: The network.
        candidates: (D,) float32 by kind.
        x: (n, *input_shape) float32.
        y: (n,) int64.
        keep: Above 1, the mean of so many draws, those with the lowest loss, is one more
            candidate, of the kind `BLEND`; of draws from several families, the best of such means.

    Returns:
        Its kind and weights.
    """
    return select_in_parts(target, (candidates,), x, y, keep=keep)


def select_in_parts(
    target: Target, parts: Iterable[Mapping[str, Tensor]], x: Tensor, y: Tensor, *, keep: int = 1
) -> tuple[str, Tensor]:
    """`select` among candidates that come some at a time; of the draws only the best stay."""
    candidates: dict[str, Tensor] = {}
    losses: dict[str, float] = {}
    for part in parts:
        for kind, candidate in part.items():
            target.require(candidate, x, y)
            candidates[kind] = candidate
        x, y = x.to(target.device), y.to(target.device)
        losses |= dict(zip(part, losses_of(target, part.values(), x, y), strict=True))
        for kinds in _families(losses).values():
            for kind in kinds[keep:]:
                del candidates[kind], losses[kind]
        # A kept draw must not keep all others of its part in memory.
        candidates = {kind: candidate.clone() for kind, candidate in candidates.items()}
    for kept in _families(losses).values():
        if len(kept) < 2:
            continue
        blend = torch.stack([candidates[kind] for kind in kept]).mean(0)
        (loss,) = losses_of(target, [blend], x, y)
        if BLEND not in losses or loss < losses[BLEND] or isnan(losses[BLEND]):
            candidates[BLEND], losses[BLEND] = blend, loss
    best = _by_loss(losses, losses)[0]
    return best, candidates[best]


def _families(losses: Mapping[str, float]) -> dict[str, list[str]]:
    """The kinds of draws by their family, those with the lowest loss first."""
    families: dict[str, list[str]] = {}
    for kind in _by_loss((kind for kind in losses if is_sample(kind)), losses):
        families.setdefault(group_of(kind), []).append(kind)
    return families


def _by_loss(kinds: Iterable[str], losses: Mapping[str, float]) -> list[str]:
    # A network that overflows has the loss NaN, which compares as neither lower nor higher.
    return sorted(kinds, key=lambda kind: (isnan(losses[kind]), losses[kind]))
