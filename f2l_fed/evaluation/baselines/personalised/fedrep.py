"""FedRep: an averaged body, trained under a head that the site has trained before it.

Reference:
    Collins et al.: Exploiting shared representations for personalized federated learning,
    arXiv 2102.07078.
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

_KEY = "fedrep"


def _train(work: PersonalisedWork, settings: PersonalisedSettings) -> Networks:
    head, received = work.head, work.starts
    for number in range(1, work.rounds + 1):
        headed = descend_side_by_side(work, received, settings.lr, _KEY, "head", number, only=head)
        made = descend_side_by_side(work, headed, settings.lr, _KEY, "body", number, only=~head)
        received = torch.where(head, made, work.mean(made))
        if number in work.measured:
            yield number, received if settings.received else made


FEDREP = PersonalisedBaseline(
    key=_KEY,
    settings=PersonalisedSettings(lr=0.2),
    train=_train,
    epochs=2,
    sent=body_numbers,
)
"""One epoch for the head, then one for the body."""
