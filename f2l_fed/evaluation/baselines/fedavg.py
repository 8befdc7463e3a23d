"""Federated averaging of whole networks, each trained on its site's own labels.

Reference:
    McMahan et al.: Communication-efficient learning of deep networks from decentralized data,
    arXiv 1602.05629.
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

_TUNED, _LOGISTIC = "fedavg", "fedavg_logistic"


def _train(work: CommonWork, settings: Settings) -> Tensor:
    work = work.turning(settings.turns)

    def local(weights: Tensor, site: TrainingSite, steps: int, rng: torch.Generator) -> Tensor:
        return supervised(work, weights, site, steps, settings.lr, rng)

    return averaged_rounds(work, _TUNED, work.start, local)


def _whole(
    work: CommonWork, _settings: Settings, weights: Tensor, site: HeldOutSite
) -> dict[str, Start]:
    return {_TUNED: Start(weights=work.cut(weights, site))}


def _headed(
    work: CommonWork, settings: Settings, weights: Tensor, site: HeldOutSite
) -> dict[str, Start]:
    return {_LOGISTIC: logistic_start(work, settings, work.body.split(weights)[0], site)}


def _cost(work: CommonWork, _settings: Settings) -> Cost:
    return cost_of(work, work.network.layout.size)


FEDAVG = Baseline(
    key=_TUNED,
    arms=(_TUNED,),
    settings=Settings(lr=0.1, local_lr={_TUNED: 0.05}, turns=False),
    train=_train,
    starts=_whole,
    cost=_cost,
)
"""The mean network, for local tuning."""

FEDAVG_LOGISTIC = Baseline(
    key=_LOGISTIC,
    arms=(_LOGISTIC,),
    settings=Settings(lr=0.02, local_lr={_LOGISTIC: 0.01}, strength=0.025),
    train=_train,
    starts=_headed,
    cost=_cost,
)
"""The body of the mean network, with a logistic head; a body for it wants smaller steps."""
