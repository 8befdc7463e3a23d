"""FedPer with shared labels."""

from __future__ import annotations

import torch

from f2l_fed.evaluation.baselines.personalised.fedper import PERSONAL_FEDPER
from f2l_fed.evaluation.baselines.personalised.local_epochs import descend_side_by_side
from tests.support.personalised import networks_of, small_personalised_work


def test_bodies_are_averaged_and_heads_stay():
    work = small_personalised_work(rounds=1)
    head = work.head
    made = networks_of(PERSONAL_FEDPER, work, lr=0.2, received=False)
    received = networks_of(PERSONAL_FEDPER, work, lr=0.2, received=True)
    assert torch.equal(received[:, head], made[:, head])
    assert not torch.equal(made[0, head], made[1, head])
    torch.testing.assert_close(received[:, ~head], work.mean(made)[~head].repeat(5, 1))


def test_the_next_round_begins_with_what_was_received():
    one, two = (small_personalised_work(rounds=rounds) for rounds in (1, 2))
    begun = networks_of(PERSONAL_FEDPER, one, lr=0.2, received=True)
    expected = descend_side_by_side(two, begun, 0.2, "fedper", 2)
    assert torch.equal(networks_of(PERSONAL_FEDPER, two, lr=0.2, received=False), expected)


def test_only_the_body_is_sent():
    work = small_personalised_work()
    features = 3 * (work.network.layout.unflatten(work.start)[work.network.output_weight].shape[1])
    assert PERSONAL_FEDPER.sent(work) == work.network.layout.size - features - 3
