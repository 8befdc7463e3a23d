"""FedPer: an averaged body, and a head that stays at its site.

Reference:
    Arivazhagan et al.: Federated learning with personalization layers, arXiv 1912.00818.
"""

from __future__ import annotations

import torch

from f2l_fed.evaluation.baselines.personalised.local_epochs import descend_side_by_side
from f2l_fed.evaluation.baselines.personalised.method import (
    Networks,
    PersonalisedBaseline,
    PersonalisedSettings,
    PersonalisedWork,
    body_numbers,
)

_KEY = "fedper"


def _train(work: PersonalisedWork, settings: PersonalisedSettings) -> Networks:
    received = work.starts
    for number in range(1, work.rounds + 1):
        made = descend_side_by_side(work, received, settings.lr, _KEY, number)
        received = torch.where(work.head, made, work.mean(made))
        if number in work.measured:
            yield number, received if settings.received else made


PERSONAL_FEDPER = PersonalisedBaseline(
    key=_KEY,
    settings=PersonalisedSettings(lr=0.3),
    train=_train,
    epochs=1,
    sent=body_numbers,
)
"""Body and head trained at once."""
