"""The coupling by optimal transport that is conditional on the context.

At sampling the noise does not know the context, so given the context it must not look any
different while fitting. Plain minibatch transport breaks this. The conditional one lets noise
change hands between near contexts only, because every exchange pays for the distance of the
contexts. Examples whose context is withheld are one context of their own, common to all of them.

Reference:
    Cheng, Schwing: The curse of conditions (C²OT), arXiv 2503.10636; here the weight is found in
    closed form.
"""

from __future__ import annotations

from torch import Tensor

from f2l_fed.flow.couplings.coupling import assign_in_groups
from f2l_fed.flow.couplings.ot import cheapest

_EXCHANGES = 0.03
"""Share of all pairs that may exchange noise; above it the noise begins to know its context."""


def conditional_ot(
    starts: Tensor, ends: Tensor, context: Tensor, known: Tensor, *, batch: int
) -> Tensor:
    """The cheapest assignment where noise pays for leaving its context; see `Coupling`.

    >>> import torch
    >>> ends = torch.tensor([[1.0], [-1.0]])
    >>> conditional_ot(-ends, ends, ends, torch.ones(2), batch=2).tolist()
    [0, 1]
    """
    groups = [known > 0, known == 0]
    return assign_in_groups(_cheapest_near, groups, starts, ends, context, known, batch=batch)


def _cheapest_near(costs: Tensor, distances: Tensor) -> Tensor:
    """The cheapest assignment, where noise from another context pays for the distance.

    Taking another's noise is worth it while the price of a unit of distance is below what is saved
    per unit. Equal contexts pay nothing; the price lets in the few best other pairs that are
    missing to `_EXCHANGES` of all, or none.
    """
    unequal = distances > 0
    if not unequal.any():
        return cheapest(costs, distances)
    saved = (costs.diagonal()[:, None] - costs)[unequal] / distances[unequal]
    equal = distances.numel() - len(saved)
    others = max(0, int(_EXCHANGES * distances.numel()) - equal)
    price = saved.sort(descending=True).values[min(others, len(saved) - 1)].clamp(min=0)
    return cheapest(costs + price * distances, distances)
