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
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.targets.target import Target

_LONGEST = 3.0
"""Largest length of a site's change, relative to the median of all."""

_LONGEST_ROW = 1.5
"""Largest length of a change of one output row, relative to the median of sites' longest ones."""

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
    if rule.rule == "mean":
        counts = examples.clamp(max=_HEAVIEST * float(examples.median()))
        change = mean_change(target, _shortened(target, changes), counts)
    else:
        # A declared number must not outvote the rest where the rule is there to prevent it.
        equal = torch.ones(len(changes))
        change = aggregate(rule.rule, changes, equal, byzantine=rule.byzantine)
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
    output = OutputSymmetry.of(target, enabled=True).output
    heads = changes[:, output]
    lengths = heads.norm(dim=2) * examples.sqrt()[:, None]
    total = lengths.sum(0)
    by_row = torch.where(total > 0, lengths / total.clamp(min=1e-30), shares[:, None])
    mean[output] = (by_row[:, :, None] * heads).sum(0)
    return mean


def _shortened(target: Target, changes: Tensor) -> Tensor:
    """(n, D) changes, none much longer than most, and no output row longer than most longest ones.

    A row counts as far as it was moved, so that a longer one would count twice over.
    """
    lengths = changes.norm(dim=1)
    changes = changes * _kept(lengths, _LONGEST * lengths.median())[:, None]
    output = OutputSymmetry.of(target, enabled=True).output
    rows = changes[:, output]
    lengths = rows.norm(dim=2)
    kept = _kept(lengths, _LONGEST_ROW * lengths.amax(dim=1).median())
    changes[:, output] = rows * kept[:, :, None]
    return changes


def _kept(lengths: Tensor, longest: Tensor) -> Tensor:
    """The shares that shorten to the longest, of the shape of the lengths."""
    return (longest / lengths.clamp(min=1e-30)).clamp(max=1)
