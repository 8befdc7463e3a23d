"""Ditto."""

from __future__ import annotations

import torch

from f2l_fed.evaluation.baselines.personalised.ditto import DITTO
from f2l_fed.evaluation.baselines.personalised.local_epochs import descend_side_by_side
from tests.support.personalised import networks_of, small_personalised_work


def means(work, lr):
    """What the sites receive at the begin of every round."""
    sent = [work.start]
    for number in range(1, work.rounds + 1):
        made = descend_side_by_side(work, work.spread(sent[-1]), lr, "ditto", number)
        sent.append(work.mean(made))
    return sent


def test_the_strongest_pull_gives_every_site_the_mean_that_it_received():
    work = small_personalised_work(rounds=3, max_gradient_norm=0.5)
    received = means(work, 0.2)[2]
    pulled = networks_of(DITTO, work, lr=0.2, pull=5.0)
    # A step goes to the mean and on by the gradient, shortened to 0.5.
    assert float((pulled - received).norm(dim=1).max()) <= 0.2 * 0.5 * 1.001
    free = networks_of(DITTO, work, lr=0.2, pull=0.0)
    assert float((free - received).norm(dim=1).max()) > 0.3


def test_without_a_pull_a_site_learns_alone():
    work = small_personalised_work(rounds=2)
    own = work.starts
    for number in (1, 2):
        own = descend_side_by_side(work, own, 0.2, "ditto", "own", number)
    assert torch.equal(networks_of(DITTO, work, lr=0.2, pull=0.0), own)


def test_it_is_pulled_to_the_mean_of_the_round_before():
    work = small_personalised_work(rounds=2)
    received, own = means(work, 0.2), work.starts
    for number, sent in ((1, received[0]), (2, received[1])):
        own = descend_side_by_side(work, own, 0.2, "ditto", "own", number, pull=0.5, towards=sent)
    torch.testing.assert_close(networks_of(DITTO, work, lr=0.2, pull=0.5), own)
