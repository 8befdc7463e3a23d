"""Federated averaging of shared labels."""

from __future__ import annotations

import torch

from f2l_fed.evaluation.baselines.personalised.fedavg import (
    ACCELERATED_FEDAVG,
    PLAIN_FEDAVG,
    TUNED_FEDAVG,
)
from f2l_fed.evaluation.baselines.personalised.local_epochs import descend_side_by_side
from tests.support.personalised import SIZES, networks_of, small_personalised_work


def test_a_round_ends_with_the_mean_weighted_by_examples():
    work = small_personalised_work(rounds=1)
    found = networks_of(PLAIN_FEDAVG, work, lr=0.2)
    made = descend_side_by_side(work, work.starts, 0.2, "fedavg", 1)
    expected = sum(size * own for size, own in zip(SIZES, made, strict=True)) / sum(SIZES)
    torch.testing.assert_close(found, expected.repeat(5, 1))
    assert not torch.allclose(found[0], made.mean(0), atol=1e-4)


def test_an_accelerated_server_begins_ahead_and_goes_further():
    work = small_personalised_work(rounds=2)
    found = networks_of(ACCELERATED_FEDAVG, work, lr=0.2, momentum=0.5, server_lr=1.5)
    first = work.mean(descend_side_by_side(work, work.starts, 0.2, "fedavg", 1))
    sent = work.start + 1.5 * (first - work.start)
    begun = sent + 0.5 * (sent - work.start)
    second = work.mean(descend_side_by_side(work, work.spread(begun), 0.2, "fedavg", 2))
    torch.testing.assert_close(found[0], begun + 1.5 * (second - begun))


def test_without_momentum_and_at_full_length_acceleration_is_plain():
    work = small_personalised_work()
    plain = networks_of(PLAIN_FEDAVG, work, lr=0.2)
    slow = networks_of(ACCELERATED_FEDAVG, work, lr=0.2, momentum=0.0, server_lr=1.0)
    torch.testing.assert_close(slow, plain)


def test_own_epochs_do_not_reach_the_mean():
    work = small_personalised_work()
    assert torch.equal(
        networks_of(TUNED_FEDAVG, work, epochs=5), networks_of(TUNED_FEDAVG, work, epochs=0)
    )
