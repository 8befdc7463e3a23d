"""FedPer."""

from __future__ import annotations

from dataclasses import replace

import torch

from f2l_fed.core.random_streams import generator_for
from f2l_fed.evaluation.baselines.averaging import supervised
from f2l_fed.evaluation.baselines.fedper import FEDPER
from tests.support.baselines import small_held_out, small_work


def by_hand(work, *, kept):
    body, head = work.body.split(work.start)
    heads = dict.fromkeys((site.name for site in work.sites), head)
    for number in (1, 2):
        returned = []
        for site in work.sites:
            chance = generator_for("small/0", "baseline", "fedper_logistic", number, site.name)
            whole = work.body.join(body, heads[site.name])
            made = supervised(work, whole, site, work.steps(number), 0.1, chance)
            one, own = work.body.split(made)
            returned.append(one)
            if kept:
                heads[site.name] = own
        body = torch.stack(returned).mean(0)
    return body


def test_heads_stay_at_their_sites_from_round_to_round():
    work = small_work(rounds=2)
    learnt = FEDPER.train(work, replace(FEDPER.settings, lr=0.1))
    assert torch.equal(learnt, by_hand(work, kept=True))
    assert not torch.equal(learnt, by_hand(work, kept=False))


def test_two_trainings_share_no_heads():
    work = small_work(rounds=2)
    assert torch.equal(*(FEDPER.train(work, FEDPER.settings) for _ in range(2)))


def test_no_head_is_sent_and_a_new_site_solves_one():
    work, site = small_work(rounds=1), small_held_out()
    head = work.body.head.layout.size
    cost = FEDPER.cost(work, FEDPER.settings)
    assert cost.bytes_up == 4 * (work.network.layout.size - head)
    starts = FEDPER.starts(work, FEDPER.settings, FEDPER.train(work, FEDPER.settings), site)
    assert tuple(starts) == FEDPER.arms
    assert float(work.body.split(starts["fedper_logistic"].weights)[1].norm()) > 0
