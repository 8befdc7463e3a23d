"""The agreement about a federation's task, as its sites get it."""

from __future__ import annotations

from dataclasses import replace

import f2l_fed
from f2l_fed.wire.agreement import Agreement
from server.federation.folder import Federation


def agreement_of(federation: Federation) -> Agreement:
    """The agreement that a federation's configuration makes.

    Raises:
        TargetError: If its network can't be built.
    """
    config = federation.config
    return Agreement(
        frame=federation.frame,
        first=config.recipe(""),
        later=config.later,
        labels=config.labels,
        features=config.features,
        scaling=replace(config.scaling, agreed=federation.scales),
        version=f2l_fed.__version__,
    )
