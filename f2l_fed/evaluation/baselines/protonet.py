"""Federated ProtoNet: a body trained by episodes of class means alone, averaged over sites.

Reference:
    Snell et al.: Prototypical networks for few-shot learning, arXiv 1703.05175.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from f2l_fed.evaluation.arms import HeldOutSite
from f2l_fed.evaluation.baselines.averaging import averaged_rounds, cost_of, logistic_start, pull
from f2l_fed.evaluation.baselines.baseline import (
    Baseline,
    CommonWork,
    Cost,
    Settings,
    Start,
    TrainingSite,
)
from f2l_fed.local_training.adapted_network import class_means_head
from f2l_fed.local_training.episodic import class_means_loss, train_body

_MEANS, _LOGISTIC = "protonet", "protonet_logistic"


def _train(work: CommonWork, settings: Settings) -> Tensor:
    config = replace(work.turning(settings.turns).episodes, lr=settings.lr)

    def local(body: Tensor, site: TrainingSite, steps: int, rng: torch.Generator) -> Tensor:
        return train_body(work.body, body, site.x, site.y, config, steps, rng, class_means_loss)

    return averaged_rounds(work, _MEANS, work.body.split(work.start)[0], local)


def _starts(
    work: CommonWork, settings: Settings, body: Tensor, site: HeldOutSite
) -> dict[str, Start]:
    own = work.body_of(site)
    means = class_means_head(own, body, *site.train)
    return {
        _MEANS: Start(weights=own.join(body, means), pull=pull(work, site)),
        _LOGISTIC: logistic_start(work, settings, body, site),
    }


def _cost(work: CommonWork, _settings: Settings) -> Cost:
    return cost_of(work, work.body.layout.size)


PROTONET = Baseline(
    key=_MEANS,
    arms=(_MEANS, _LOGISTIC),
    settings=Settings(lr=0.05, local_lr={_MEANS: 0.05, _LOGISTIC: 0.01}, strength=1.0),
    train=_train,
    starts=_starts,
    cost=_cost,
)
"""With class means at the site, and with a logistic head."""
