"""FedALA: a head that a site mixes from its own and the mean's, number by number.

Reference:
    Zhang et al.: FedALA: adaptive local aggregation for personalized federated learning,
    arXiv 2212.01197.
"""

from __future__ import annotations

import torch
from torch import Tensor

from f2l_fed.evaluation.baselines.personalised.local_epochs import (
    descend_side_by_side,
    gradients,
    minibatches,
)
from f2l_fed.evaluation.baselines.personalised.method import (
    Networks,
    PersonalisedBaseline,
    PersonalisedSettings,
    PersonalisedWork,
    all_numbers,
)

_KEY = "fedala"

_FIRST_PASSES = 11
"""Passes over the examples that learn the weights when a site mixes for the first time."""

_SHARE = 0.8
"""Part of a site's examples in a pass."""


def _train(work: PersonalisedWork, settings: PersonalisedSettings) -> Networks:
    own, weights = work.starts, torch.ones_like(work.starts)
    for number in range(1, work.rounds + 1):
        made = descend_side_by_side(work, own, settings.lr, _KEY, number)
        sent = work.mean(made)
        passes = _FIRST_PASSES if number == 1 else 1
        weights = mixing_weights(work, made, sent, weights, settings.mixing_lr, number, passes)
        own = mixed(made, sent, weights)
        if number in work.measured:
            yield number, own if settings.received else made


def mixed(own: Tensor, sent: Tensor, weights: Tensor) -> Tensor:
    """Networks between a site's own (weight 0) and the mean (weight 1), number by number.

    Args:
        own: (S, D) float32.
        sent: (D,) float32.
        weights: (S, D) float32, from 0 to 1.
    """
    return own + weights * (sent - own)


def mixing_weights(
    work: PersonalisedWork,
    own: Tensor,
    sent: Tensor,
    weights: Tensor,
    lr: float,
    number: int,
    passes: int,
) -> Tensor:
    """The weights after gradient descent on the mixed network's loss; 1 outside of the head.

    Args:
        work: The sites.
        own: (S, D) float32, the sites' own networks.
        sent: (D,) float32, the mean.
        weights: (S, D) float32, the weights to begin with.
        lr: Learning rate of the weights.
        number: The round, for the random streams.
        passes: Passes over the examples.

    Returns:
        (S, D) float32, from 0 to 1.
    """
    weights = torch.where(work.head, weights, 1.0)
    for one in range(passes):
        for batch in minibatches(work, 1, _KEY, "mixing", number, one, share=_SHARE):
            mine, before = own[batch.sites], weights[batch.sites]
            found = gradients(work.network, mixed(mine, sent, before), batch.x, batch.y)
            step = lr * found * (sent - mine) * work.head
            weights[batch.sites] = (before - step).clamp(0, 1)
    return weights


FEDALA = PersonalisedBaseline(
    key=_KEY,
    settings=PersonalisedSettings(lr=0.2, received=True),
    train=_train,
    epochs=1 + _SHARE,
    sent=all_numbers,
)
"""Weights are learnt again after every round, from those of the round before."""
