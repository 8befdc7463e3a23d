"""Diffusion as strong as the flow: exact for normal targets, and better than that once fitted."""

from __future__ import annotations

from functools import cache
from math import cos, pi

import pytest
import torch

from f2l_fed.errors import ConfigError
from f2l_fed.flow import SAMPLERS, Denoiser, FlowConfig, fit_diffusion, sample_diffusion
from f2l_fed.flow.sources.noise import white_noise
from tests.support.latents import PLAIN, SHAPE, bimodal, shares
from tests.support.small import rng, stirred

samplers = pytest.mark.parametrize("sampler", SAMPLERS)


@cache
def fitted():
    targets, expected, _ = bimodal()
    config = FlowConfig(width=64, depth=1, steps=300, lr=5e-3, check_every=25)
    return fit_diffusion(targets, expected, PLAIN, config, rng(1))


def blank(spread):
    return Denoiser(SHAPE, spread, width=8, depth=1)


@samplers
def test_an_untrained_model_is_the_normal_around_the_expected_latent(sampler):
    spread = torch.tensor([0.3, 2.0, 0.7, 1.4, 0.7, 1.4, 0.7, 1.4])
    expected = torch.linspace(-3, 3, SHAPE.size).expand(4_000, -1)
    drawn = sample_diffusion(
        blank(spread), expected, SHAPE, rng(2), sampler=sampler, evaluations=200
    )
    deviations = (drawn - expected) / spread
    assert deviations.mean(0).abs().max() < 5 / 4_000**0.5
    assert (deviations.std(0) - 1).abs().max() < 0.06


def test_the_deterministic_sampler_shrinks_normal_noise_as_its_schedule_says():
    spread, expected = torch.full((8,), 0.5), torch.ones(20, 8)
    for evaluations in (1, 4, 64):
        drawn = sample_diffusion(blank(spread), expected, SHAPE, rng(), evaluations=evaluations)
        kept = cos(pi / 2 / evaluations) ** evaluations
        torch.testing.assert_close(drawn, 1 + 0.5 * kept * white_noise(20, SHAPE, rng()))


def test_training_finds_structure_that_normal_targets_do_not_have():
    fit = fitted()
    assert fit.loss < 0.9 * fit.normal_loss
    assert 0 < fit.step <= 300
    assert not any(parameter.requires_grad for parameter in fit.model.parameters())


@samplers
def test_samples_reach_both_modes_and_little_lies_between(sampler):
    context = 0.45 * torch.randn(2_000, 2, generator=rng(7))
    drawn = sample_diffusion(fitted().model, context, PLAIN, rng(8), sampler=sampler)
    left, between, right = shares(drawn - context)
    assert min(left, right) > 0.3
    assert between < 0.12


@samplers
def test_what_depends_on_the_context_is_learned(sampler):
    expected = torch.randn(400, 2, generator=rng(1))
    config = FlowConfig(width=32, depth=1, steps=100, lr=5e-3, check_every=25)
    fit = fit_diffusion(expected + 0.5 * expected.sign(), expected, PLAIN, config, rng(2))
    context = torch.tensor([[1.0, 1.0], [-1.0, -1.0]]).repeat_interleave(500, 0)
    off = sample_diffusion(fit.model, context, PLAIN, rng(3), sampler=sampler) - context
    assert off[:500].mean() == pytest.approx(0.5, abs=0.12)
    assert off[500:].mean() == pytest.approx(-0.5, abs=0.12)


@samplers
def test_equal_seeds_draw_equal_latents_and_the_deterministic_sampler_asks_for_noise_once(sampler):
    model, context = stirred(blank(torch.ones(8))), torch.zeros(5, 8)
    draws = rng(1)
    first = sample_diffusion(model, context, SHAPE, draws, sampler=sampler, evaluations=3)
    again = sample_diffusion(model, context, SHAPE, rng(1), sampler=sampler, evaluations=3)
    other = sample_diffusion(model, context, SHAPE, rng(2), sampler=sampler, evaluations=3)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    once = rng(1)
    torch.randn(5, 8, generator=once)
    assert torch.equal(draws.get_state(), once.get_state()) == (sampler == "ddim")


@samplers
def test_samples_stay_in_the_space_where_the_rows_sum_to_zero(sampler):
    model, context = stirred(blank(torch.ones(8))), torch.zeros(5, 8)
    rows = SHAPE.split(
        sample_diffusion(model, context, SHAPE, rng(1), sampler=sampler, evaluations=4)
    ).rows
    assert rows.abs().max() > 0.1
    torch.testing.assert_close(rows.sum(1), torch.zeros(5, 2), rtol=0, atol=1e-4)


@samplers
def test_the_model_is_evaluated_as_often_as_it_is_told(sampler):
    model, calls = blank(torch.ones(8)), []
    model.time.register_forward_hook(lambda *_: calls.append(1))
    context = torch.zeros(5, 8)
    sample_diffusion(model, context, SHAPE, rng(), sampler=sampler, evaluations=7)
    assert len(calls) == 7


def test_a_withheld_context_changes_the_centre_alone():
    model, contexts = stirred(blank(torch.ones(8))), torch.randn(2, 5, 8, generator=rng(1))
    told, untold = (
        [
            sample_diffusion(model, context, SHAPE, rng(2), evaluations=4, guidance=guidance)
            - context
            for context in contexts
        ]
        for guidance in (1.0, 0.0)
    )
    assert (told[0] - told[1]).abs().max() > 0.01
    torch.testing.assert_close(untold[0], untold[1], rtol=0, atol=1e-5)


@samplers
def test_without_temperature_every_draw_is_the_same(sampler):
    model, context = stirred(blank(torch.ones(8))), torch.zeros(5, 8)
    cold = sample_diffusion(
        model, context, SHAPE, rng(), sampler=sampler, evaluations=4, temperature=0.0
    )
    assert cold.std(0).max() < 1e-6


def test_equal_seeds_fit_equal_models():
    targets, expected, _ = bimodal(40)
    config = FlowConfig(width=8, depth=1, steps=5, check_every=5)
    first, again = (fit_diffusion(targets, expected, PLAIN, config, rng(1)) for _ in range(2))
    assert (first.loss, first.step) == (again.loss, again.step)
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])


def test_an_unknown_sampler_is_named():
    with pytest.raises(ConfigError, match="ddim, ddpm, got 'ddmp'"):
        sample_diffusion(
            blank(torch.ones(8)), torch.zeros(1, 8), SHAPE, rng(), sampler="ddmp", evaluations=1
        )
