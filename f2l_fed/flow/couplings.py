"""Couplings: which start goes with which target within a batch.

Straight lines between paired starts and targets cross less, and the flow needs fewer evaluations.
Three things keep the pairing honest.

What is permuted is the noise, not the starts. The source "prior" has a centre for every context,
and a start carried off to another context would not be one that sampling can meet. So a coupling
compares how far a start lies from its centre with how far a target lies from the centre of *its
own* context; where all contexts share one centre, this is the usual distance.

At sampling the noise does not know the context, so given the context it must not look any
different while fitting. Plain minibatch transport breaks this: it deals the noise that lies to the
left to all contexts whose targets lie to the left. The conditional one lets noise change hands
between near contexts only, because every exchange pays for the distance of the contexts.

Examples whose context is withheld are one context of their own, common to all of them.

Reference:
    Tong et al.: Minibatch optimal transport, arXiv 2302.00482. Cheng, Schwing: The curse of
    conditions (C²OT), arXiv 2503.10636; here the weight is found in closed form.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from f2l_fed.symmetry.assignment import assignment

LARGEST = 512
"""Examples that are paired at once."""

_EXCHANGES = 0.03
"""Share of all pairs that may exchange noise; above it the noise begins to know its context."""

Coupling = Callable[[Tensor, Tensor], Tensor]
"""From costs [target, noise] and squared distances of contexts, (n, n), to each target's noise."""


def independent(costs: Tensor, _: Tensor) -> Tensor:
    """Every target keeps the noise that was drawn for it."""
    return torch.arange(len(costs))


def ot(costs: Tensor, _: Tensor) -> Tensor:
    """The cheapest assignment."""
    return assignment(costs.double())


def conditional_ot(costs: Tensor, distances: Tensor) -> Tensor:
    """The cheapest assignment, where noise from another context pays for the distance.

    Taking another's noise is worth it while the price of a unit of distance is below what is saved
    per unit. Equal contexts pay nothing; the price lets in the few best other pairs that are
    missing to `_EXCHANGES` of all, or none.
    """
    unequal = distances > 0
    if not unequal.any():
        return ot(costs, distances)
    saved = (costs.diagonal()[:, None] - costs)[unequal] / distances[unequal]
    equal = distances.numel() - len(saved)
    others = max(0, int(_EXCHANGES * distances.numel()) - equal)
    price = saved.sort(descending=True).values[min(others, len(saved) - 1)].clamp(min=0)
    return ot(costs + price * distances, distances)


COUPLINGS: dict[str, Coupling] = {
    "conditional-ot": conditional_ot,
    "independent": independent,
    "ot": ot,
}


def couple(
    coupling: str, starts: Tensor, ends: Tensor, context: Tensor, known: Tensor, *, batch: int
) -> Tensor:
    """Pairs starts with targets.

    Args:
        coupling: A key of `COUPLINGS`.
        starts: (n, k) float32, how far each start lies from its centre.
        ends: (n, k) float32, how far each target lies from the centre for its context.
        context: (n, k) float32.
        known: (n,) float32, 0 where the context is withheld, else 1.
        batch: Largest number of examples to pair at once.

    Returns:
        (n,) int64, the start for each target; a permutation.

    >>> ends = torch.tensor([[1.0], [-1.0]])
    >>> couple("ot", -ends, ends, ends, torch.ones(2), batch=2).tolist()
    [1, 0]
    >>> couple("conditional-ot", -ends, ends, ends, torch.ones(2), batch=2).tolist()
    [0, 1]
    """
    plan = torch.arange(len(starts))
    if coupling == "independent":
        return plan
    # Plain transport ignores the context, so it may not know who was told it either.
    groups = [known > 0, known == 0] if coupling == "conditional-ot" else [known >= 0]
    for group in groups:
        members = group.nonzero()[:, 0]
        parts = -(-len(members) // batch)
        # Every part takes some of each record when a record's examples stand side by side.
        for part in (members[first::parts] for first in range(parts)):
            told = context[part] * known[part, None]
            costs = torch.cdist(ends[part], starts[part]).square()
            plan[part] = part[COUPLINGS[coupling](costs, torch.cdist(told, told).square())]
    return plan
