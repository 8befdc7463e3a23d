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
    def local(weights: Tensor, site: TrainingSite, steps: int, rng: torch.Generator) -> Tensor:
        return supervised(work, weights, site, steps, settings.lr, rng)

    return averaged_rounds(work, _TUNED, work.start, local)


def _starts(
    work: CommonWork, settings: Settings, weights: Tensor, site: HeldOutSite
) -> dict[str, Start]:
    body = work.body.split(weights)[0]
    return {
        _TUNED: Start(weights=weights),
        _LOGISTIC: logistic_start(work, settings, body, site),
    }


def _cost(work: CommonWork, _settings: Settings) -> Cost:
    return cost_of(work, work.network.layout.size)


FEDAVG = Baseline(
    key=_TUNED,
    arms=(_TUNED, _LOGISTIC),
    settings=Settings(lr=0.05, local_lr={_TUNED: 0.05, _LOGISTIC: 0.05}, strength=0.25),
    train=_train,
    starts=_starts,
    cost=_cost,
)
"""The mean network for local tuning, and its body with a logistic head."""
