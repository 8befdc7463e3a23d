"""Per-FedAvg."""

from __future__ import annotations

from dataclasses import replace

import torch

from f2l_fed.evaluation.baselines.fedavg import FEDAVG
from f2l_fed.evaluation.baselines.per_fedavg import PER_FEDAVG
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.finetune import finetune, loss_and_accuracy
from tests.support.baselines import small_held_out, small_work
from tests.support.small import rng

SETTINGS = replace(PER_FEDAVG.settings, lr=0.1, inner_lr=0.1, inner_steps=3)


def test_its_start_has_less_loss_after_a_few_local_steps_than_the_one_it_began_with():
    work = small_work(sites=12, rounds=8)
    learnt = PER_FEDAVG.train(work, SETTINGS)
    recipe = Recipe(steps=3, lr=0.1, momentum=0.9)

    def after(weights):
        found = 0.0
        for site in map(small_held_out, range(50, 60)):
            adapted = finetune(work.network, weights, *site.train, recipe, rng())
            found += loss_and_accuracy(work.network, adapted, *site.test)[0]
        return found / 10

    assert after(learnt) < 0.9 * after(work.start)


def test_steps_inside_an_episode_change_what_is_learnt_and_count():
    work = small_work(rounds=1)
    more = replace(SETTINGS, inner_steps=1)
    assert not torch.equal(PER_FEDAVG.train(work, SETTINGS), PER_FEDAVG.train(work, more))
    assert PER_FEDAVG.cost(work, SETTINGS).local_steps == 4 * 12
    assert PER_FEDAVG.cost(work, more).local_steps == 2 * 12


def test_it_sends_as_much_as_federated_averaging():
    work = small_work()
    ours, theirs = (one.cost(work, one.settings) for one in (PER_FEDAVG, FEDAVG))
    assert (ours.bytes_up, ours.bytes_down) == (theirs.bytes_up, theirs.bytes_down)
