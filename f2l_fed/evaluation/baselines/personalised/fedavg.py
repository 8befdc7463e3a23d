"""Federated averaging of shared labels: plain, with local epochs afterwards, with acceleration.

References:
    McMahan et al.: Communication-efficient learning of deep networks from decentralized data,
    arXiv 1602.05629. Cheng et al.: Fine-tuning is fine in federated learning, arXiv 2108.07313.
    Huo et al.: Faster on-device training using new federated momentum algorithm, arXiv 2002.02090.
"""

from __future__ import annotations

import torch

from f2l_fed.evaluation.baselines.personalised.local_epochs import descend_side_by_side
from f2l_fed.evaluation.baselines.personalised.method import (
    Networks,
    PersonalisedBaseline,
    PersonalisedSettings,
    PersonalisedWork,
    all_numbers,
)


def _train(work: PersonalisedWork, settings: PersonalisedSettings) -> Networks:
    sent = work.start
    change = torch.zeros_like(sent)
    for number in range(1, work.rounds + 1):
        begun = sent + settings.momentum * change
        made = descend_side_by_side(work, work.spread(begun), settings.lr, "fedavg", number)
        now = begun + settings.server_lr * (work.mean(made) - begun)
        sent, change = now, now - sent
        if number in work.measured:
            yield number, work.spread(sent)


PLAIN_FEDAVG = PersonalisedBaseline(
    key="plain_fedavg",
    settings=PersonalisedSettings(lr=0.2),
    train=_train,
    epochs=1,
    sent=all_numbers,
)
"""The mean network, weighted by examples, at every site."""

TUNED_FEDAVG = PersonalisedBaseline(
    key="fedavg_epochs",
    settings=PersonalisedSettings(lr=0.3, epochs=5, own_lr=0.4),
    train=_train,
    epochs=1,
    sent=all_numbers,
)
"""The mean network after local epochs with a falling learning rate."""

ACCELERATED_FEDAVG = PersonalisedBaseline(
    key="fedavg_accelerated",
    settings=PersonalisedSettings(lr=0.3, epochs=5, own_lr=0.4, momentum=0.5, server_lr=1.5),
    train=_train,
    epochs=1,
    sent=all_numbers,
)
"""The same, where the server goes further in the direction of its last change."""
