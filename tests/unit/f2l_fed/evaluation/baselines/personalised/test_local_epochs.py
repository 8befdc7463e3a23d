"""Local epochs of all sites side by side."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from f2l_fed.evaluation.baselines.personalised.local_epochs import (
    descend_side_by_side,
    gradients,
    minibatches,
)
from tests.support.personalised import SIZES, small_personalised_work
from tests.support.small import rng

WORK = small_personalised_work()


def random_networks(count, seed=0):
    draws = rng(seed)
    return torch.stack([WORK.network.initialise(draws) for _ in range(count)])


def test_an_epoch_shows_every_site_each_of_its_examples_once():
    seen = {number: [] for number in range(5)}
    for batch in minibatches(WORK, 1, "test"):
        for site, x in zip(batch.sites.tolist(), batch.x, strict=True):
            seen[site].append(x)
    for number, site in enumerate(WORK.sites):
        shown = torch.cat(seen[number])
        assert shown.shape == site.x.shape
        assert not torch.equal(shown, site.x)
        assert torch.equal(shown.sort(0).values, site.x.sort(0).values)


def test_sites_with_few_examples_stop_first_and_know_how_far_they_are():
    found = list(minibatches(WORK, 2, "test"))
    assert [len(batch.sites) for batch in found] == [5, 5, 4, 4, 3, 3, 2, 2, 1, 1]
    assert found[4].sites.tolist() == [3, 0, 2]
    assert found[4].done.flatten().tolist() == pytest.approx([4 / 10, 4 / 8, 4 / 6])


def test_a_share_of_the_examples_is_a_share_of_the_steps():
    counts = torch.zeros(5)
    for batch in minibatches(WORK, 1, "test", share=0.5):
        counts[batch.sites] += 1
    assert counts.tolist() == [2, 1, 2, 3, 1]


def test_fewer_examples_than_a_minibatch_are_repeated():
    one = replace(WORK.sites[4], x=WORK.sites[4].x[:3], y=WORK.sites[4].y[:3])
    (batch,) = minibatches(replace(WORK, sites=(one,)), 1, "test")
    assert batch.y.shape == (1, 10)
    assert set(batch.y[0].tolist()) == set(one.y.tolist())


def test_the_same_purpose_draws_the_same_and_another_one_does_not():
    first, again, other = (next(minibatches(WORK, 1, *p)).x for p in (["a", 1], ["a", 1], ["a", 2]))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("count", [2, 5])
def test_gradients_of_a_stack_are_those_of_each_network(count):
    networks, draws = random_networks(count), rng(1)
    x = torch.randn(count, 10, 8, generator=draws)
    y = torch.randint(3, (count, 10), generator=draws)
    found = gradients(WORK.network, networks, x, y)
    for number in range(count):
        theta = networks[number].clone().requires_grad_()
        loss = functional.cross_entropy(WORK.network.logits(theta, x[number]), y[number])
        (expected,) = torch.autograd.grad(loss, theta)
        torch.testing.assert_close(found[number], expected)


def by_hand(start, number, lr, purpose, *, falling=False, longest=5.0):
    theta, made = start.clone(), list(minibatches(WORK, 1, *purpose))
    for batch in made:
        if number not in batch.sites.tolist():
            continue
        at = batch.sites.tolist().index(number)
        network = theta.clone().requires_grad_()
        loss = functional.cross_entropy(WORK.network.logits(network, batch.x[at]), batch.y[at])
        (gradient,) = torch.autograd.grad(loss, network)
        gradient = gradient * min(1.0, longest / float(gradient.norm()))
        theta = theta - lr * (1 - float(batch.done[at]) if falling else 1) * gradient
    return theta


@pytest.mark.parametrize("falling", [False, True])
@pytest.mark.parametrize("longest", [5.0, 0.1])
def test_every_site_descends_by_itself(falling, longest):
    work, starts = replace(WORK, max_gradient_norm=longest), random_networks(5)
    found = descend_side_by_side(work, starts, 0.3, "test", falling=falling)
    for number in range(5):
        expected = by_hand(starts[number], number, 0.3, ["test"], falling=falling, longest=longest)
        torch.testing.assert_close(found[number], expected)
    assert torch.equal(starts, random_networks(5))


def test_numbers_that_are_not_trained_stay():
    starts = random_networks(5)
    found = descend_side_by_side(WORK, starts, 0.3, "test", only=WORK.head)
    changed = (found != starts).any(0)
    assert changed[WORK.head].all()
    assert not changed[~WORK.head].any()


def test_a_pull_of_one_over_the_rate_ends_beside_its_aim():
    work, aim = replace(WORK, max_gradient_norm=0.01), random_networks(1, seed=9)[0]
    found = descend_side_by_side(work, random_networks(5), 0.5, "test", pull=2.0, towards=aim)
    # What is left is the last step's own gradient, shortened to 0.01.
    assert float((found - aim).norm(dim=1).max()) <= 0.5 * 0.01 * 1.001
    free = descend_side_by_side(work, random_networks(5), 0.5, "test")
    assert float((free - aim).norm(dim=1).min()) > 0.5


def test_the_steps_of_an_epoch_are_the_mean_over_sites():
    assert WORK.steps_of_epoch == sum(SIZES) / 10 / 5
