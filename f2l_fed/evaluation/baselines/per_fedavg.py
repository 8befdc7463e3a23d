"""Per-FedAvg: a start that is trained to be good after a few local steps, by first-order MAML.

Reference:
    Fallah et al.: Personalized federated learning with theoretical guarantees: a model-agnostic
    meta-learning approach, NeurIPS 2020 (the first-order variant).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from f2l_fed.evaluation.arms import HeldOutSite
from f2l_fed.evaluation.baselines.averaging import averaged_rounds, cost_of, descend
from f2l_fed.evaluation.baselines.baseline import (
    Baseline,
    CommonWork,
    Cost,
    Settings,
    Start,
    TrainingSite,
)
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.episodic import draw_episode
from f2l_fed.local_training.finetune import finetune
from f2l_fed.local_training.turns import drawn_turn

_KEY = "per_fedavg"


def _train(work: CommonWork, settings: Settings) -> Tensor:
    work = work.turning(settings.turns)
    network, episodes = work.network, work.episodes
    inner = Recipe(
        steps=settings.inner_steps, lr=settings.inner_lr, momentum=work.local.momentum, batch=0
    )

    def local(sent: Tensor, site: TrainingSite, steps: int, rng: torch.Generator) -> Tensor:
        def gradient(weights: Tensor) -> Tensor:
            episode = draw_episode(site.y, episodes.support, episodes.query, rng)
            chosen = torch.cat([episode.support, episode.query])
            x = drawn_turn(site.x[chosen], episodes.turns, episodes.inversion, rng)
            y, few = site.y[chosen], len(episode.support)
            adapted = finetune(network, weights, x[:few], y[:few], inner, rng)
            theta = adapted.detach().requires_grad_()
            loss = functional.cross_entropy(network.training_logits(theta, x[few:]), y[few:])
            (found,) = torch.autograd.grad(loss, theta)
            return found

        if sum(bool(count >= 2) for count in site.y.bincount()) < 2:
            return sent
        return network.calibrated(descend(work, sent, gradient, steps, settings.lr), site.x)

    return averaged_rounds(work, _KEY, work.start, local)


def _starts(
    work: CommonWork, _settings: Settings, weights: Tensor, site: HeldOutSite
) -> dict[str, Start]:
    return {_KEY: Start(weights=work.cut(weights, site))}


def _cost(work: CommonWork, settings: Settings) -> Cost:
    return cost_of(work, work.network.layout.size, gradients=1 + settings.inner_steps)


PER_FEDAVG = Baseline(
    key=_KEY,
    arms=(_KEY,),
    settings=Settings(lr=0.05, local_lr={_KEY: 0.03}, inner_lr=0.05, inner_steps=1, turns=False),
    train=_train,
    starts=_starts,
    cost=_cost,
)
"""The start that every site adapts by itself."""
