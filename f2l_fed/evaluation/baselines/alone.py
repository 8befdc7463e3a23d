"""Local training to the end: a site's own examples, no federation, as many steps as it takes."""

from __future__ import annotations

from torch import Tensor

from f2l_fed.core.random_streams import generator_for
from f2l_fed.evaluation.arms import HeldOutSite
from f2l_fed.evaluation.baselines.baseline import Baseline, CommonWork, Cost, Settings, Start
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.finetune import iterates, loss_and_accuracy

_KEY = "alone_to_end"

_MOST_STEPS = 1500

_DONE = 0.01
"""Training loss in nats at which nothing is left to learn."""

_CHECK_EVERY = 50


def _train(work: CommonWork, _settings: Settings) -> Tensor:
    return work.start


def _starts(
    work: CommonWork, settings: Settings, _weights: Tensor, site: HeldOutSite
) -> dict[str, Start]:
    network, (x, y) = work.body_of(site).network, site.train
    start = network.initialise(generator_for(work.lineage, site.name, "random"))
    recipe = Recipe(steps=_MOST_STEPS, lr=settings.lr, momentum=work.local.momentum, batch=0)
    rng = generator_for(work.lineage, site.name, "alone")
    found = start
    for step, theta in enumerate(iterates(network, start, x, y, recipe, rng)):
        if step % _CHECK_EVERY == 0:
            found = theta
            if loss_and_accuracy(network, network.calibrated(theta, x), x, y)[0] < _DONE:
                break
    return {_KEY: Start(weights=network.calibrated(found, x).clone())}


def _cost(_work: CommonWork, _settings: Settings) -> Cost:
    return Cost(bytes_up=0, bytes_down=0, local_steps=0)


ALONE = Baseline(
    key=_KEY,
    arms=(_KEY,),
    settings=Settings(lr=0.05, local_lr={_KEY: 0.05}),
    train=_train,
    starts=_starts,
    cost=_cost,
)
"""A network from random weights until its training loss has gone."""
