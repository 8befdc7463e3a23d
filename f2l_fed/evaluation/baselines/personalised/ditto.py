"""Ditto: federated averaging, and beside it a network of the site's own that is pulled to the mean.

Reference:
    Li et al.: Ditto: fair and robust federated learning through personalization, arXiv 2012.04221.
"""

from __future__ import annotations

from f2l_fed.evaluation.baselines.personalised.local_epochs import descend_side_by_side
from f2l_fed.evaluation.baselines.personalised.method import (
    Networks,
    PersonalisedBaseline,
    PersonalisedSettings,
    PersonalisedWork,
    all_numbers,
)

_KEY = "ditto"


def _train(work: PersonalisedWork, settings: PersonalisedSettings) -> Networks:
    sent, own = work.start, work.starts
    for number in range(1, work.rounds + 1):
        made = descend_side_by_side(work, work.spread(sent), settings.lr, _KEY, number)
        own = descend_side_by_side(
            work, own, settings.lr, _KEY, "own", number, pull=settings.pull, towards=sent
        )
        sent = work.mean(made)
        if number in work.measured:
            yield number, own


DITTO = PersonalisedBaseline(
    key=_KEY,
    settings=PersonalisedSettings(lr=0.2, pull=0.03),
    train=_train,
    epochs=2,
    sent=all_numbers,
)
"""One epoch for the mean, one for the site's own network."""
