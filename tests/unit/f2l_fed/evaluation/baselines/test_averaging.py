"""Parts of all baselines: rounds, steps, batches and heads at a site."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from f2l_fed.evaluation.baselines.averaging import (
    averaged_rounds,
    cost_of,
    descend,
    logistic_start,
    supervised,
)
from f2l_fed.evaluation.baselines.baseline import Settings
from f2l_fed.local_training.adapted_network import adapted_head
from f2l_fed.local_training.finetune import loss_and_accuracy
from tests.support.baselines import other_steps, small_held_out, small_work
from tests.support.small import rng

WORK = small_work()


def test_a_round_ends_with_the_plain_mean_and_the_first_has_more_steps():
    asked = []

    def local(sent, site, steps, rng):
        asked.append((site.name, steps))
        return sent + float(site.name[-1])

    found = averaged_rounds(WORK, "test", torch.tensor([1.0, 2.0]), local)
    # The mean of 0, 1, 2, 3 in each of three rounds.
    assert found.tolist() == [1 + 3 * 1.5, 2 + 3 * 1.5]
    assert asked[:5] == [*((f"site-{n}", 12) for n in range(4)), ("site-0", 6)]
    assert len(asked) == 12


def test_every_site_and_round_draws_anew_and_a_repetition_draws_the_same():
    def local(sent, site, steps, rng):
        drawn.append(float(torch.rand((), generator=rng)))
        return sent

    drawn: list[float] = []
    averaged_rounds(WORK, "test", torch.zeros(1), local)
    first, drawn = drawn, []
    averaged_rounds(WORK, "test", torch.zeros(1), local)
    assert drawn == first
    assert len(set(drawn)) == 12


def test_descent_has_momentum_and_shortens_long_gradients():
    work = replace(WORK, episodes=replace(WORK.episodes, momentum=0.5, max_gradient_norm=2.0))
    start = torch.tensor([0.0, 0.0])
    found = descend(work, start, lambda _: torch.tensor([3.0, 4.0]), 2, 0.1)
    # The gradient becomes (1.2, 1.6); steps of 1 and 1.5 times that.
    assert found.tolist() == pytest.approx([-0.3, -0.4])
    assert start.tolist() == [0.0, 0.0]


def test_supervised_steps_learn_the_sites_own_labels():
    site = WORK.sites[0]
    made = supervised(WORK, WORK.start, site, 60, 0.1, rng())
    before = loss_and_accuracy(WORK.network, WORK.start, site.x, site.y)
    after = loss_and_accuracy(WORK.network, made, site.x, site.y)
    assert before[0] == pytest.approx(1.0986, abs=1e-3)
    assert after[0] < 0.5
    assert after[1] > 0.85


def test_a_logistic_start_has_the_body_and_the_strength_that_it_is_given():
    body, site = WORK.body.initialise(rng()), small_held_out()
    start = logistic_start(WORK, Settings(lr=0.1, strength=2.0), body, site)
    kept, head = WORK.body.split(start.weights)
    assert torch.equal(kept[:-1], body[:-1])
    expected = adapted_head(WORK.body, body, None, *site.train, replace(WORK.head, context=2.0))
    assert torch.equal(head, expected)
    weaker = logistic_start(WORK, Settings(lr=0.1, strength=0.1), body, site)
    assert WORK.body.split(weaker.weights)[1].norm() > head.norm()
    assert start.pull == pytest.approx(25 / 15)


def test_the_cost_counts_all_rounds_and_every_number_that_is_sent():
    cost = cost_of(other_steps(WORK, 10, 4), 100, gradients=3)
    assert (cost.bytes_up, cost.bytes_down) == (400, 400)
    assert cost.local_steps == 3 * (10 + 4 + 4)
