"""Federated averaging of whole networks."""

from __future__ import annotations

from dataclasses import replace

import torch

from f2l_fed.core.random_streams import generator_for
from f2l_fed.evaluation.baselines.averaging import supervised
from f2l_fed.evaluation.baselines.fedavg import FEDAVG, FEDAVG_LOGISTIC
from tests.support.baselines import small_held_out, small_work


def test_one_round_is_the_mean_of_what_the_sites_make_of_the_start():
    work = small_work(sites=2, rounds=1)
    learnt = FEDAVG.train(work, replace(FEDAVG.settings, lr=0.1))
    made = [
        supervised(
            work,
            work.start,
            site,
            12,
            0.1,
            generator_for("small/0", "baseline", "fedavg", 1, site.name),
        )
        for site in work.sites
    ]
    torch.testing.assert_close(learnt, (made[0] + made[1]) / 2)


def test_the_whole_network_or_its_body_is_the_start():
    work, site = small_work(rounds=1), small_held_out()
    learnt = FEDAVG.train(work, FEDAVG.settings)
    whole = FEDAVG.starts(work, FEDAVG.settings, learnt, site)["fedavg"]
    headed = FEDAVG_LOGISTIC.starts(work, FEDAVG_LOGISTIC.settings, learnt, site)
    assert torch.equal(whole.weights, learnt)
    assert whole.pull == 0
    bodies = [work.body.split(one.weights)[0] for one in (whole, headed["fedavg_logistic"])]
    assert torch.equal(*bodies)
    assert headed["fedavg_logistic"].pull > 0


def test_a_whole_network_is_sent():
    work = small_work()
    assert FEDAVG.cost(work, FEDAVG.settings).bytes_up == 4 * work.network.layout.size
