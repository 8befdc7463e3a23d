"""Rectification reaches in few evaluations what took many, or leaves the flow as it was."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch

from f2l_fed.flow import FlowConfig, draw, fit_flow, guided, solve
from f2l_fed.flow.reflow import reflow
from tests.support.latents import PLAIN, SHAPE, bimodal, box, shares
from tests.support.small import rng

CONFIG = FlowConfig(width=64, depth=1, steps=300, lr=5e-3, check_every=50)


@cache
def fitted():
    return fit_flow(*bimodal(), PLAIN, CONFIG, rng(1))


@cache
def rectified():
    return reflow(fitted(), bimodal()[1], CONFIG, rng(2), couples=1024, evaluations=32)


def offsets(field, evaluations):
    context = 0.45 * torch.randn(2_000, 2, generator=rng(7))
    start = draw("prior", context, bimodal()[2], PLAIN, rng(8))
    with torch.no_grad():
        end = solve(guided(field, context), start, solver="euler", evaluations=evaluations)
    return end - context


def test_paths_become_straight_and_few_evaluations_go_where_many_went():
    fit = rectified()
    assert fit.few_error < 0.2 * fit.former_few_error
    assert fit.curvature < 0.2 * fit.former_curvature
    assert 0 < fit.reflow_step <= CONFIG.steps


def test_one_evaluation_now_reaches_both_modes():
    left, between, right = shares(offsets(rectified().field, 1))
    assert min(left, right) > 0.3
    assert between < 0.15
    assert shares(offsets(fitted().field, 1))[1] > 0.9


def test_many_evaluations_of_both_fields_end_at_the_same_places():
    former, ours = (offsets(fit.field, 64) for fit in (fitted(), rectified()))
    assert (ours - former).square().mean() < 0.05 * former.square().mean()


def test_what_the_first_fit_said_is_kept_and_its_field_is_not_touched():
    first = fitted()
    before = copy.deepcopy(first.field.state_dict())
    quick = FlowConfig(width=64, depth=1, steps=4, check_every=2)
    fit = reflow(first, bimodal()[1], quick, rng(3), couples=64, evaluations=8)
    assert (fit.loss, fit.normal_loss, fit.step) == (first.loss, first.normal_loss, first.step)
    assert fit.reflow_step > 0
    for name, value in before.items():
        assert torch.equal(first.field.state_dict()[name], value)
    assert any((fit.field.state_dict()[name] != value).any() for name, value in before.items())
    assert not any(parameter.requires_grad for parameter in fit.field.parameters())


def test_a_field_that_is_not_better_is_not_taken():
    ruin = FlowConfig(width=64, depth=1, steps=20, lr=1e3, check_every=5)
    fit = reflow(fitted(), bimodal()[1], ruin, rng(2), couples=64, evaluations=8)
    assert fit.reflow_step == 0
    assert (fit.few_error, fit.curvature) == (fit.former_few_error, fit.former_curvature)
    for name, value in fit.field.state_dict().items():
        assert torch.equal(value, fitted().field.state_dict()[name])


@pytest.mark.parametrize(
    ("source", "dropout"), [("gaussian", 0.0), ("gaussian", 1.0), ("kaiming", 0.1), ("prior", 0.5)]
)
def test_every_source_can_be_rectified_with_and_without_contexts(source, dropout):
    expected = torch.randn(20, SHAPE.size, generator=rng(3))
    initial = box(SHAPE)
    config = FlowConfig(
        source=source, dropout=dropout, width=8, depth=1, steps=60, lr=5e-3, check_every=20
    )
    start = draw(source, expected, torch.ones(8), SHAPE, rng(4), initial=initial)
    first = fit_flow(start, expected, torch.ones(8), SHAPE, config, rng(5), initial=initial)

    fit = reflow(first, expected, config, rng(6), initial=initial, couples=256, evaluations=16)
    assert fit.few_error < fit.former_few_error


def test_a_flow_without_contexts_is_rectified_without_them():
    targets, expected, spread = bimodal(20)
    config = FlowConfig(
        source="gaussian", dropout=1.0, width=8, depth=1, steps=20, lr=5e-3, check_every=10
    )
    first = fit_flow(targets, expected, spread, PLAIN, config, rng(1))
    one, other = (
        reflow(first, context, config, rng(2), couples=128, evaluations=8)
        for context in (expected, 5 - 3 * expected)
    )
    assert (one.few_error, one.reflow_step) == (other.few_error, other.reflow_step)
    assert one.few_error < one.former_few_error


def test_equal_seeds_rectify_equally_and_others_do_not():
    quick = FlowConfig(width=64, depth=1, steps=4, check_every=2)
    first, again, other = (
        reflow(fitted(), bimodal()[1], quick, rng(seed), couples=64, evaluations=8)
        for seed in (1, 1, 2)
    )
    assert (first.few_error, first.curvature) == (again.few_error, again.curvature)
    assert first.few_error != other.few_error
    for name, value in first.field.state_dict().items():
        assert torch.equal(value, again.field.state_dict()[name])
