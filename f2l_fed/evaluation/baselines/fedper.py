"""FedPer: a body that is averaged, trained under heads that stay at their sites.

Reference:
    Arivazhagan et al.: Federated learning with personalization layers, arXiv 1912.00818.
"""

from __future__ import annotations

import torch
from torch import Tensor

from f2l_fed.evaluation.arms import HeldOutSite
from f2l_fed.evaluation.baselines.averaging import (
    averaged_rounds,
    cost_of,
    logistic_start,
    supervised,
)
from f2l_fed.evaluation.baselines.baseline import (
    Baseline,
    CommonWork,
    Cost,
    Settings,
    Start,
    TrainingSite,
)

_LOGISTIC = "fedper_logistic"


def _train(work: CommonWork, settings: Settings) -> Tensor:
    work = work.turning(settings.turns)
    body, head = work.body.split(work.start)
    own = {site.name: head for site in work.sites}

    def local(sent: Tensor, site: TrainingSite, steps: int, rng: torch.Generator) -> Tensor:
        whole = work.body.join(sent, own[site.name])
        made = supervised(work, whole, site, steps, settings.lr, rng)
        returned, own[site.name] = work.body.split(made)
        return returned

    return averaged_rounds(work, _LOGISTIC, body, local)


def _starts(
    work: CommonWork, settings: Settings, body: Tensor, site: HeldOutSite
) -> dict[str, Start]:
    return {_LOGISTIC: logistic_start(work, settings, body, site)}


def _cost(work: CommonWork, _settings: Settings) -> Cost:
    return cost_of(work, work.network.layout.size - work.body.head.layout.size)


FEDPER = Baseline(
    key=_LOGISTIC,
    arms=(_LOGISTIC,),
    settings=Settings(lr=0.1, local_lr={_LOGISTIC: 0.2}, strength=2.5),
    train=_train,
    starts=_starts,
    cost=_cost,
)
"""Its body with a logistic head, since a new site has none."""
