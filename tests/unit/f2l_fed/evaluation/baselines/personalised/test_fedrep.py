"""FedRep."""

from __future__ import annotations

import torch

from f2l_fed.evaluation.baselines.personalised.fedrep import FEDREP
from f2l_fed.evaluation.baselines.personalised.local_epochs import descend_side_by_side
from f2l_fed.local_training.finetune import loss_and_accuracy
from tests.support.personalised import networks_of, small_personalised_work


def test_the_head_is_trained_first_and_the_body_under_it():
    work = small_personalised_work(rounds=1)
    head = work.head
    made = networks_of(FEDREP, work, lr=0.2, received=False)
    headed = descend_side_by_side(work, work.starts, 0.2, "fedrep", "head", 1, only=head)
    assert torch.equal(made[:, head], headed[:, head])
    assert torch.equal(headed[:, ~head], work.starts[:, ~head])
    assert not torch.equal(made[:, ~head], headed[:, ~head])


def test_no_head_leaves_its_site():
    work = small_personalised_work(rounds=2)
    head, received = work.head, networks_of(FEDREP, work, lr=0.2, received=True)
    bodies, heads = received[:, ~head], received[:, head]
    assert torch.equal(bodies, bodies[:1].expand_as(bodies))
    assert min(float((heads[0] - other).norm()) for other in heads[1:]) > 0.01
    assert FEDREP.sent(work) == int((~head).sum())


def test_its_sites_learn():
    work = small_personalised_work(rounds=4)
    found = networks_of(FEDREP, work, lr=0.2)
    for own, site in zip(found, work.sites, strict=True):
        before = loss_and_accuracy(work.network, work.start, site.x, site.y)[0]
        assert loss_and_accuracy(work.network, own, site.x, site.y)[0] < 0.8 * before
