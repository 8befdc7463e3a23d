"""The next network that all sites share, the average of what they made of it, and the next anchor.

What sites get is the average itself. Their next passes start further on: the server goes beyond it
along the mean change, and ahead from there, which trains faster and predicts worse.

A site's passes move the output rows of its own labels and leave the others, so a row is averaged by
how far each site has moved it, and everything else by the number of examples. Both are known to the
server; how many examples of which label a site has is not.

Reference:
    Nesterov: A method of solving a convex programming problem with convergence rate O(1/k²), 1983,
    for the start that lies ahead. Reddi et al.: Adaptive federated optimization, arXiv 2003.00295,
    for the average as a gradient of the server's own steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from f2l_fed.aggregate.registry import aggregate
from f2l_fed.generator.config import AggregateConfig
from f2l_fed.generator.generator import Bodies
from f2l_fed.local_training.config import SharedConfig
from f2l_fed.targets.target import Target

_LONGEST = 3.0
"""Largest length of a site's change, relative to the median of all."""

_HEAVIEST = 5.0
"""Largest number of examples that counts, relative to the median of all."""


def next_networks(
    target: Target,
    started: Tensor,
    last: Tensor | None,
    returned: Tensor,
    examples: Tensor,
    rule: AggregateConfig,
    config: SharedConfig,
) -> Bodies:
    """The shared network of a release, and the start of the sites' next passes.

    Args:
        target: The network.
        started: (D,) float32, where the sites started.
        last: (D,) float32, the server's last point, `server_point` of the release before; None
            before the first, where it is where the sites started.
        returned: (n, D) float32, what n >= 1 sites made of it.
        examples: (n,) float32, the numbers of examples that they declare.
        rule: Another rule than the mean of changes, if one is set.
        config: How far along the mean change the server goes, and how far ahead from there.
    """
    changes = returned - started
    counts = examples.clamp(max=_HEAVIEST * float(examples.median()))
    if rule.rule == "mean":
        change = mean_change(target, _shortened(changes), counts)
    else:
        change = aggregate(rule.rule, changes, counts, byzantine=rule.byzantine)
    own = started + change
    point = server_point(started, own, config)
    moved = point - (started if last is None else last)
    return Bodies(own=own, next=point + config.acceleration * moved)


def server_point(started: Tensor, own: Tensor, config: SharedConfig) -> Tensor:
    """(D,) float32, the point that the server has reached: beyond the mean network.

    Args:
        started: (D,) float32, where the sites started.
        own: (D,) float32, the mean of what they made of it.
        config: How far beyond.
    """
    return started + config.step * (own - started)


def mean_change(target: Target, changes: Tensor, examples: Tensor) -> Tensor:
    """(D,) float32, the mean of (n, D) changes by (n,) numbers of examples, head rows by length."""
    shares = (examples / examples.sum()).to(changes.dtype)
    mean = shares @ changes
    heads = torch.stack([_head(target, change) for change in changes])
    lengths = heads.norm(dim=2) * examples.sqrt()[:, None]
    total = lengths.sum(0)
    by_row = torch.where(total > 0, lengths / total.clamp(min=1e-30), shares[:, None])
    rows = (by_row[:, :, None] * heads).sum(0)
    tensors = target.layout.unflatten(mean)
    features = tensors[target.output_weight].shape[1]
    tensors[target.output_weight].copy_(rows[:, :features])
    if target.output_bias is not None:
        tensors[target.output_bias].copy_(rows[:, features])
    return mean


def _head(target: Target, weights: Tensor) -> Tensor:
    """(K, F) or, with the bias as last column, (K, F + 1) float32, the output rows."""
    tensors = target.layout.unflatten(weights)
    rows: Tensor = tensors[target.output_weight]
    if target.output_bias is None:
        return rows
    bias = tensors[target.output_bias][:, None]
    whole: Tensor = torch.cat([rows, bias], dim=1)
    return whole


def _shortened(changes: Tensor) -> Tensor:
    """Changes of which none is much longer than most."""
    lengths = changes.norm(dim=1)
    longest = _LONGEST * float(lengths.median())
    kept: Tensor = (longest / lengths.clamp(min=1e-30)).clamp(max=1)
    return changes * kept[:, None]
