"""Couplings pair what lies close, and the conditional one only what belongs together."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch

from f2l_fed.codec import LatentShape
from f2l_fed.flow import COUPLINGS, FlowConfig, draw, fit_flow, guided, solve
from tests.support.small import rng

LINE = LatentShape(common=1, classes=0, width=0)


def cost(starts, ends, plan):
    return float((starts[plan] - ends).square().sum())


def batch(count, seed=0, size=2):
    return torch.randn(2, count, size, generator=rng(seed))


def test_plain_transport_is_the_cheapest_of_all_assignments():
    starts, ends = batch(6)
    plan = COUPLINGS["ot"](starts, ends, ends, torch.ones(6), batch=6)
    cheapest = min(cost(starts, ends, list(order)) for order in permutations(range(6)))
    assert cost(starts, ends, plan) == pytest.approx(cheapest)
    assert cheapest < 0.7 * cost(starts, ends, torch.arange(6))


def test_noise_never_changes_hands_between_contexts_that_many_examples_share():
    starts, ends = batch(64)
    label = torch.arange(64) % 3
    context = torch.eye(3)[label]
    plan = COUPLINGS["conditional-ot"](starts, ends, context, torch.ones(64), batch=64)
    assert torch.equal(label[plan], label)
    for which in range(3):
        own = (label == which).nonzero()[:, 0]
        best = COUPLINGS["ot"](starts[own], ends[own], ends[own], torch.ones(len(own)), batch=64)
        assert cost(starts, ends[own], plan[own]) == pytest.approx(
            cost(starts[own], ends[own], best), rel=1e-5
        )


def test_where_every_context_is_another_only_near_ones_exchange_noise():
    starts, ends = batch(128)
    context = torch.randn(128, 2, generator=rng(3))
    plan = COUPLINGS["conditional-ot"](starts, ends, context, torch.ones(128), batch=128)
    exchanged = plan != torch.arange(128)
    away = (context - context[plan])[exchanged].norm(dim=1)
    assert exchanged.float().mean() > 0.2
    assert away.median() < 0.25 * torch.pdist(context).median()
    assert cost(starts, ends, plan) < 0.9 * cost(starts, ends, torch.arange(128))


def test_examples_without_a_context_share_their_noise_with_each_other_alone():
    starts, ends = batch(60)
    known = (torch.arange(60) % 2).float()
    # Even if they were told the same as is said in place of a withheld context.
    context = torch.zeros(60, 1)
    plan = COUPLINGS["conditional-ot"](starts, ends, context, known, batch=60)
    assert torch.equal(known[plan], known)
    withheld = (known == 0).nonzero()[:, 0]
    best = COUPLINGS["ot"](starts[withheld], ends[withheld], ends, torch.ones(30), batch=60)
    assert torch.equal(plan[withheld], withheld[best])


def test_plain_transport_ignores_who_has_a_context():
    starts, ends = batch(60)
    plans = [COUPLINGS["ot"](starts, ends, ends, known, batch=60) for known in torch.eye(60)[:2]]
    assert torch.equal(*plans)
    assert cost(starts, ends, plans[0]) < 0.5 * cost(starts, ends, torch.arange(60))


@pytest.mark.parametrize("coupling", ["ot", "conditional-ot"])
def test_more_examples_than_a_batch_are_paired_in_parts(coupling):
    starts, ends = batch(10)
    plan = COUPLINGS[coupling](starts, ends, torch.zeros(10, 1), torch.ones(10), batch=4)
    assert sorted(plan.tolist()) == list(range(10))
    assert torch.equal(plan % 3, torch.arange(10) % 3)
    assert (plan != torch.arange(10)).any()


def test_around_the_prior_noise_is_dealt_by_what_the_prior_missed_and_no_centre_moves():
    expected = 1_000 * torch.randn(128, 1, generator=rng(0))
    targets = expected + torch.randn(128, 1, generator=rng(1))

    def squared_distance(coupling):
        config = FlowConfig(coupling=coupling, width=8, depth=1, steps=0, held_out=0.99)
        return fit_flow(targets, expected, torch.ones(1), LINE, config, rng()).normal_loss

    losses = {coupling: squared_distance(coupling) for coupling in COUPLINGS}
    # A start at another context's centre would have to travel a thousand.
    assert max(losses.values()) < 4
    assert losses["ot"] < 0.7 * losses["independent"]


def spread_of_samples(coupling):
    """Two contexts with a normal target each; mean and deviation of what is made for one."""
    side = (2.0 * torch.arange(200) % 4 - 1)[:, None]
    targets = side + 0.3 * torch.randn(200, 1, generator=rng(4))
    config = FlowConfig(
        source="gaussian", coupling=coupling, width=16, depth=1, steps=150, lr=5e-3, dropout=0.0
    )
    fit = fit_flow(targets, side, torch.full((1,), 0.3), LINE, config, rng(5))
    context = torch.ones(2_000, 1)
    start = draw("gaussian", context, torch.ones(1), LINE, rng(6))
    with torch.no_grad():
        end = solve(guided(fit.field, context), start, solver="heun", evaluations=40)
    return float(end.std())


def test_plain_transport_spoils_what_is_made_for_a_context_and_the_conditional_one_does_not():
    assert spread_of_samples("conditional-ot") == pytest.approx(0.3, rel=0.15)
    assert spread_of_samples("ot") > 0.4
