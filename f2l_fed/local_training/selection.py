"""The selection of a start among candidates, by their loss on a site's own examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isnan

import torch
from torch import Tensor

from f2l_fed.local_training.candidate_kinds import BLEND, group_of, is_sample
from f2l_fed.local_training.finetune import loss_and_accuracy
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
    for candidate in candidates.values():
        target.require(candidate, x, y)
    losses = {kind: loss_and_accuracy(target, w, x, y)[0] for kind, w in candidates.items()}
    draws = _by_loss((kind for kind in losses if is_sample(kind)), losses)
    families: dict[str, list[str]] = {}
    for kind in draws:
        families.setdefault(group_of(kind), []).append(kind)
    for kinds in families.values():
        if len(kept := kinds[:keep]) < 2:
            continue
        blend = torch.stack([candidates[kind] for kind in kept]).mean(0)
        loss = loss_and_accuracy(target, blend, x, y)[0]
        if BLEND not in losses or loss < losses[BLEND] or isnan(losses[BLEND]):
            candidates, losses[BLEND] = {**candidates, BLEND: blend}, loss
    best = _by_loss(losses, losses)[0]
    return best, candidates[best]


def _by_loss(kinds: Iterable[str], losses: Mapping[str, float]) -> list[str]:
    # A network that overflows has the loss NaN, which compares as neither lower nor higher.
    return sorted(kinds, key=lambda kind: (isnan(losses[kind]), losses[kind]))
