"""The next body of a lineage: the average of what the sites made of the last one.

Its change is kept short, or sites would not go along: by default they refuse a body that is further
from the last one than that one is long, and newcomers measure by the first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from f2l_fed.aggregate.registry import aggregate
from f2l_fed.generator.config import AggregateConfig
from f2l_fed.local_training.finetune import clip_by_norm
from server.federation.body_updates import BodyUpdate

CLIPPED_FROM = 3
"""Number of sites from which on no change is longer than the median of all."""

ROBUST_FROM = 10
"""Number of sites from which on the mean is a trimmed one."""

_TRIMMED = 0.3
"""Share of the sites whose values are dropped at either end."""

_LONGEST = 0.9
"""Largest length of a change, relative to that of the body and of the lineage's first one."""


def next_body(
    body: Tensor, updates: Sequence[BodyUpdate], config: AggregateConfig, *, first: Tensor
) -> Tensor:
    """(B,) float32, the average of the updates; the body itself where there are none.

    Args:
        body: (B,) float32, the body that was trained.
        updates: Of one site each.
        config: The rule, where another than the default is set; else a mean of clipped changes for
            few sites and a trimmed mean for ten or more.
        first: (B,) float32, the first body of the lineage.
    """
    if not updates:
        return body
    rows = torch.stack([update.body for update in updates])
    rule, byzantine = config.rule, config.byzantine
    if rule == "mean" and len(rows) >= ROBUST_FROM:
        rule, byzantine = "trimmed_mean", byzantine or int(_TRIMMED * len(rows))
    elif rule == "mean" and len(rows) >= CLIPPED_FROM:
        rule = "clipped_mean"
    if len(rows) <= 2 * byzantine:
        rule, byzantine = "median", 0
    # Around the body: the average of equal values is then exactly that value.
    changes = rows - body
    change = aggregate(rule, changes, torch.ones(len(rows)), byzantine=byzantine)
    return body + clip_by_norm(change, _LONGEST * float(torch.minimum(body.norm(), first.norm())))
