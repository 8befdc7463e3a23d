"""The next body of a lineage: the average of what the sites made of the last one.

Its change is bounded, or sites would not go along: by default they refuse a body that is further
from the last one than three times that one's length, and newcomers measure by the first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from f2l_fed.aggregate.registry import aggregate
from f2l_fed.generator.config import AggregateConfig
from f2l_fed.local_training.finetune import clip_by_norm
from f2l_fed.targets.body import length_of
from server.federation.body_updates import BodyUpdate

CLIPPED_FROM = 3
"""Number of sites from which on no change is longer than the median of all."""

ROBUST_FROM = 10
"""Number of sites from which on changes that point elsewhere are left out."""

_LEAST_COSINE = 0.5
"""Smallest cosine of a change with the median change, relative to the median cosine."""

_LONGEST = 2.5
"""Largest length of a change, relative to that of the body and of the lineage's first one."""


def next_body(
    body: Tensor, updates: Sequence[BodyUpdate], config: AggregateConfig, *, first: Tensor
) -> Tensor:
    """(B,) float32, the average of the updates; the body itself where there are none.

    Args:
        body: (B,) float32, the body that was trained.
        updates: Of one site each.
        config: The rule, where another than the default is set; else a mean of clipped changes.
        first: (B,) float32, the first body of the lineage.
    """
    if not updates:
        return body
    # Around the body: the average of equal values is then exactly that value.
    changes = torch.stack([update.body for update in updates]) - body
    rule, byzantine = config.rule, config.byzantine
    if rule == "mean" and len(changes) >= CLIPPED_FROM:
        rule, byzantine = "clipped_mean", 0
        if len(changes) >= ROBUST_FROM:
            changes = changes[_points_alike(changes)]
    elif len(changes) <= 2 * byzantine:
        rule, byzantine = "median", 0
    change = aggregate(rule, changes, torch.ones(len(changes)), byzantine=byzantine)
    return body + clip_by_norm(change, _LONGEST * min(length_of(body), length_of(first)))


def _points_alike(changes: Tensor) -> Tensor:
    """(n,) bool, which of (n, B) changes point where most do.

    Honest changes of unlike sites have much in common, flipped or invented ones nothing; so a
    limit relative to what is usual serves noised changes too, whose cosines are all small.
    """
    middle = changes.median(dim=0).values
    cosines = torch.cosine_similarity(changes.double(), middle[None].double())
    usual = cosines.median()
    # At least half of them stay, whatever they are.
    return cosines >= torch.minimum(_LEAST_COSINE * usual, usual)
