"""The interface of couplings: which start goes with which target within a batch.

Straight lines between paired starts and targets cross less, and the flow needs fewer evaluations.
What is permuted is the noise, not the starts. The source "prior" has a centre for every context,
and a start carried off to another context would not be one that sampling can meet. So a coupling
compares how far a start lies from its centre with how far a target lies from the centre of *its
own* context; where all contexts share one centre, this is the usual distance.

Reference:
    Tong et al.: Minibatch optimal transport, arXiv 2302.00482.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

Assignment = Callable[[Tensor, Tensor], Tensor]
"""From costs [target, noise] and squared distances of contexts, (n, n), to each target's noise."""


class Coupling(Protocol):
    """Pairs starts with targets."""

    def __call__(
        self, starts: Tensor, ends: Tensor, context: Tensor, known: Tensor, *, batch: int
    ) -> Tensor:
        """The start for each target.

        Args:
            starts: (n, k) float32, how far each start lies from its centre.
            ends: (n, k) float32, how far each target lies from the centre for its context.
            context: (n, k) float32.
            known: (n,) float32, 0 where the context is withheld, else 1.
            batch: Largest number of examples to pair at once.

        Returns:
            (n,) int64; a permutation.
        """


def assign_in_groups(
    assign: Assignment,
    groups: Sequence[Tensor],
    starts: Tensor,
    ends: Tensor,
    context: Tensor,
    known: Tensor,
    *,
    batch: int,
) -> Tensor:
    """A coupling by assignments within groups of examples; see `Coupling`.

    Args:
        assign: Solves one assignment of ``batch`` examples or fewer.
        groups: (n,) bool each; together they have every example once.
    """
    plan = torch.arange(len(starts))
    for group in groups:
        members = group.nonzero()[:, 0]
        parts = -(-len(members) // batch)
        # Every part takes some of each record when a record's examples stand side by side.
        for part in (members[first::parts] for first in range(parts)):
            visible = context[part] * known[part, None]
            costs = torch.cdist(ends[part], starts[part]).square()
            plan[part] = part[assign(costs, torch.cdist(visible, visible).square())]
    return plan
