"""Federated ProtoNet."""

from __future__ import annotations

import torch

from f2l_fed.evaluation.baselines.protonet import PROTONET
from f2l_fed.local_training.adapted_network import class_means_head
from f2l_fed.local_training.episodic import class_means_loss, draw_episode, episode_loss
from tests.support.baselines import small_held_out, small_work
from tests.support.small import rng

WORK = small_work(rounds=4)


def loss(work, body, of=class_means_loss):
    site, found = work.sites[0], 0.0
    for seed in range(20):
        episode = draw_episode(site.y, 2, 4, rng(100 + seed))
        x = site.x[torch.cat([episode.support, episode.query])]
        found += float(of(work.body, body, x, episode))
    return found / 20


def test_training_lowers_the_loss_of_class_means_and_learns_the_scale():
    start = WORK.body.split(WORK.start)[0]
    learnt = PROTONET.train(WORK, PROTONET.settings)
    assert loss(WORK, learnt) < 0.8 * loss(WORK, start)
    assert learnt[-1] != start[-1]


def test_the_loss_is_the_half_of_the_methods_that_has_no_ridge_head():
    body = WORK.body.initialise(rng())
    assert 0 < loss(WORK, body) < 2 * loss(WORK, body, episode_loss)


def test_its_body_has_class_means_or_a_logistic_head():
    learnt, site = WORK.body.initialise(rng()), small_held_out()
    starts = PROTONET.starts(WORK, PROTONET.settings, learnt, site)
    assert tuple(starts) == PROTONET.arms
    heads = [WORK.body.split(start.weights)[1] for start in starts.values()]
    assert torch.equal(heads[0], class_means_head(WORK.body, learnt, *site.train))
    assert not torch.equal(heads[0], heads[1])


def test_a_body_with_its_scale_is_sent_and_no_head():
    cost = PROTONET.cost(WORK, PROTONET.settings)
    head = WORK.body.head.layout.size
    assert cost.bytes_up == cost.bytes_down == 4 * (WORK.network.layout.size - head + 1)
