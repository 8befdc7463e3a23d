"""pFedHN."""

from __future__ import annotations

import torch

from f2l_fed.evaluation.baselines.personalised.local_epochs import descend_side_by_side
from f2l_fed.evaluation.baselines.personalised.pfedhn import PFEDHN, Hypernetwork, learn
from tests.support.personalised import networks_of, small_personalised_work

WORK = small_personalised_work(rounds=2)


def server():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Hypernetwork(5, WORK.start)


def test_sites_begin_near_the_common_start_but_not_with_the_same_network():
    made = server()().detach()
    assert made.shape == WORK.starts.shape
    assert float((made - WORK.start).abs().max()) < 0.1
    assert not torch.equal(made[0], made[1])


def test_a_step_takes_the_sites_changes_back_through_the_hypernetwork():
    one, other = server(), server()
    sent = one()
    made = descend_side_by_side(WORK, sent.detach(), 0.2, "test")
    changes = (made - sent.detach()) / 5
    expected = torch.autograd.grad(sent, list(one.parameters()), grad_outputs=changes)
    before = [parameter.detach().clone() for parameter in other.parameters()]
    learn(other, torch.optim.SGD(other.parameters(), 0.1), made, 1)
    for old, new, change in zip(before, other.parameters(), expected, strict=True):
        torch.testing.assert_close(new.detach(), old + 0.1 * change)


def test_more_steps_of_the_server_bring_it_closer_to_what_was_returned():
    made = descend_side_by_side(WORK, server()().detach(), 0.2, "test", epochs=3)

    def left(steps):
        one = server()
        learn(one, torch.optim.Adam(one.parameters(), 0.003), made, steps)
        return float((one().detach() - made).norm())

    assert left(50) < 0.7 * left(1)


def test_a_site_has_what_it_made_of_the_network_that_was_generated_for_it():
    received = networks_of(PFEDHN, small_personalised_work(rounds=1), received=True)
    expected = descend_side_by_side(WORK, received, PFEDHN.settings.lr, "pfedhn", 2)
    torch.testing.assert_close(networks_of(PFEDHN, WORK, received=False), expected)


def test_training_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    networks_of(PFEDHN, WORK)
    assert torch.equal(torch.rand(3), expected)
