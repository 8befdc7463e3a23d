"""The coupling by minibatch optimal transport.

It deals the noise that lies to the left to all contexts whose targets lie to the left, while at
sampling the noise does not know the context: `f2l_fed.flow.couplings.conditional_ot` avoids this.

Reference:
    Tong et al.: Minibatch optimal transport, arXiv 2302.00482.
"""

from __future__ import annotations

from torch import Tensor

from f2l_fed.flow.couplings.coupling import assign_in_groups
from f2l_fed.symmetry.assignment import assignment


def ot(starts: Tensor, ends: Tensor, context: Tensor, known: Tensor, *, batch: int) -> Tensor:
    """The cheapest assignment; see `Coupling`.

    >>> import torch
    >>> ends = torch.tensor([[1.0], [-1.0]])
    >>> ot(-ends, ends, ends, torch.ones(2), batch=2).tolist()
    [1, 0]
    """
    # Plain transport ignores the context, so it may not know for whom it is withheld either.
    everyone = [known >= 0]
    return assign_in_groups(cheapest, everyone, starts, ends, context, known, batch=batch)


def cheapest(costs: Tensor, _: Tensor) -> Tensor:
    """The assignment of the smallest total cost, whatever the contexts; see `Assignment`."""
    return assignment(costs.double())
