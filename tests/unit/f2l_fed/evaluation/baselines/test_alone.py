"""Local training to the end."""

from __future__ import annotations

from f2l_fed.core.random_streams import generator_for
from f2l_fed.evaluation.baselines.alone import ALONE
from f2l_fed.local_training.finetune import loss_and_accuracy
from tests.support.baselines import small_held_out, small_work


def test_it_trains_from_random_weights_until_nothing_is_left_to_learn():
    work, site = small_work(), small_held_out()
    random = work.network.initialise(generator_for("small/0", site.name, "random"))
    learnt = ALONE.train(work, ALONE.settings)
    start = ALONE.starts(work, ALONE.settings, learnt, site)["alone_to_end"]
    assert loss_and_accuracy(work.network, random, *site.train)[0] > 0.5
    assert loss_and_accuracy(work.network, start.weights, *site.train)[0] < 0.01
    assert loss_and_accuracy(work.network, start.weights, *site.test)[1] > 0.6


def test_nothing_is_sent():
    cost = ALONE.cost(small_work(), ALONE.settings)
    assert (cost.bytes_up, cost.bytes_down, cost.local_steps) == (0, 0, 0)
