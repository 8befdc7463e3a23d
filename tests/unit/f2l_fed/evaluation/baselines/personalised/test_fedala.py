"""FedALA."""

from __future__ import annotations

import torch

from f2l_fed.evaluation.baselines.personalised.fedala import FEDALA, mixed, mixing_weights
from f2l_fed.evaluation.baselines.personalised.local_epochs import descend_side_by_side
from f2l_fed.local_training.finetune import loss_and_accuracy
from tests.support.personalised import networks_of, small_personalised_work

WORK = small_personalised_work(rounds=1)
OWN = descend_side_by_side(WORK, WORK.starts, 0.2, "test", epochs=5)


def learnt(sent, *, lr=1.0, passes=5):
    return mixing_weights(WORK, OWN, sent, torch.ones_like(OWN), lr, 1, passes)


def test_weights_of_zero_and_one_are_the_own_network_and_the_mean():
    sent = WORK.mean(OWN)
    assert torch.equal(mixed(OWN, sent, torch.zeros_like(OWN)), OWN)
    torch.testing.assert_close(mixed(OWN, sent, torch.ones_like(OWN)), WORK.spread(sent))
    half = mixed(OWN, sent, torch.full_like(OWN, 0.5))
    torch.testing.assert_close(half, (OWN + sent) / 2)


def test_a_mean_that_is_bad_for_a_site_gets_less_weight():
    wrong = torch.where(WORK.head, -3 * OWN[0], OWN[0])
    weights = learnt(wrong)
    assert float(weights.min()) == 0
    assert float(weights.max()) == 1
    after = mixed(OWN, wrong, weights)
    for number, site in enumerate(WORK.sites):
        before = loss_and_accuracy(WORK.network, wrong, site.x, site.y)[0]
        assert loss_and_accuracy(WORK.network, after[number], site.x, site.y)[0] < 0.5 * before


def test_the_body_is_the_mean_s_and_equal_numbers_say_nothing():
    sent = WORK.mean(OWN)
    assert bool((learnt(sent)[:, ~WORK.head] == 1).all())
    assert bool((learnt(sent)[:, WORK.head] < 1).any())
    assert torch.equal(learnt(OWN[2])[2], torch.ones_like(OWN[2]))


def test_weights_that_never_move_are_federated_averaging():
    work = small_personalised_work(rounds=2)
    found = networks_of(FEDALA, work, lr=0.2, mixing_lr=0.0, received=True)
    sent = work.start
    for number in (1, 2):
        sent = work.mean(descend_side_by_side(work, work.spread(sent), 0.2, "fedala", number))
    torch.testing.assert_close(found, work.spread(sent))
    moved = networks_of(FEDALA, work, lr=0.2, mixing_lr=1.0, received=True)
    assert not torch.allclose(moved, found, atol=1e-3)
