"""The sites' own networks: those of a baseline, after local epochs that serve nobody else."""

from __future__ import annotations

from f2l_fed.evaluation.baselines.personalised.local_epochs import descend_side_by_side
from f2l_fed.evaluation.baselines.personalised.method import (
    Networks,
    PersonalisedBaseline,
    PersonalisedWork,
)


def own_networks(baseline: PersonalisedBaseline, work: PersonalisedWork) -> Networks:
    """The networks that sites use after every measured round, once a baseline is trained so far.

    Args:
        baseline: The baseline with its settings.
        work: Its work.
    """
    settings = baseline.settings
    for number, networks in baseline.train(work, settings):
        if settings.epochs:
            yield (
                number,
                descend_side_by_side(
                    work,
                    networks,
                    settings.own_lr,
                    *("own", number),
                    epochs=settings.epochs,
                    falling=True,
                ),
            )
        else:
            yield number, networks
