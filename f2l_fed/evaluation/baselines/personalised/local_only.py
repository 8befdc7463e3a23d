"""Local training alone: a site's own examples, one epoch a round, no federation."""

from __future__ import annotations

from f2l_fed.evaluation.baselines.personalised.local_epochs import descend_side_by_side
from f2l_fed.evaluation.baselines.personalised.method import (
    Networks,
    PersonalisedBaseline,
    PersonalisedSettings,
    PersonalisedWork,
    no_numbers,
)

_KEY = "local_only"


def _train(work: PersonalisedWork, settings: PersonalisedSettings) -> Networks:
    own = work.starts
    for number in range(1, work.rounds + 1):
        own = descend_side_by_side(work, own, settings.lr, _KEY, number)
        if number in work.measured:
            yield number, own


LOCAL_ONLY = PersonalisedBaseline(
    key=_KEY,
    settings=PersonalisedSettings(lr=0.3),
    train=_train,
    epochs=1,
    sent=no_numbers,
)
"""A network that goes on learning at its site."""
