"""A generator that was fitted on no site, and what a fit says of its model."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from f2l_fed.codec.config import CodecConfig
from f2l_fed.flow import FlowConfig
from f2l_fed.generator.config import GeneratorConfig
from f2l_fed.generator.fit import fit_generator, fit_without_records
from f2l_fed.generator.serialization import load_generator, save_generator
from f2l_fed.prior.config import PriorConfig
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.targets import Target
from tests.support.small import rng, small_generator, small_target

TARGET = small_target()


@pytest.mark.parametrize("symmetric", [True, False])
def test_it_expects_what_the_context_says_and_draws_nothing_around_it(symmetric, tmp_path):
    symmetry = OutputSymmetry.of(TARGET, enabled=symmetric)
    config, anchor = small_generator().config, torch.randn(TARGET.layout.size, generator=rng(1))
    fit = fit_without_records(TARGET, symmetry, config, rng(2), anchor)
    contexts = torch.randn(5, TARGET.layout.size, generator=rng(3))
    for generator in (fit.generator, _read_back(fit.generator, tmp_path)):
        torch.testing.assert_close(generator.expect(contexts), anchor + contexts)
        drawn = generator.sample(contexts, rng(4))
        torch.testing.assert_close(drawn, contexts, rtol=0, atol=1e-4)
        assert torch.equal(generator.mean, anchor)
        assert generator.config == config
    assert len(fit.held_out) == len(fit.drawn) == 0


def _read_back(generator, folder):
    save_generator(generator, folder / "generator.safetensors")
    return load_generator(folder / "generator.safetensors")


@pytest.mark.parametrize("bimodal", [True, False])
def test_a_release_says_in_words_whether_its_flow_is_better_than_normal_draws(bimodal):
    symmetry = OutputSymmetry.of(TARGET, enabled=False)
    draws = rng(5)
    contexts = torch.randn(240, 1, symmetry.size, generator=draws)
    noise = 0.2 * torch.randn(240, 1, symmetry.size, generator=draws)
    sides = 2 * torch.randint(2, (240, 1, 1), generator=draws) - 1.0
    config = GeneratorConfig(
        codec=CodecConfig(common=2),
        flow=FlowConfig(width=32, depth=1, steps=300, lr=5e-3, check_every=50),
        prior=PriorConfig(families=1),
    )
    zero = torch.zeros(symmetry.size)
    weights = contexts + noise + bimodal * 3 * sides
    fit = fit_generator(contexts, weights, TARGET, symmetry, config, rng(6), anchor=zero)
    assert fit.flow.wins == bimodal
    assert fit.generator.config.sample.evaluations == (4 if bimodal else 0)
    named = (
        "Prior and flow: " if bimodal else "Prior and normal draws around it, for a flow is no b"
    )
    assert fit.model().startswith(named)
    assert f" is {fit.flow.loss:.3g} and that of normal draws " in fit.model()
    start = replace(fit, flow=replace(fit.flow, step=0))
    # Two validations, 50 steps apart.
    assert "around it: within 100 steps no flow came below" in start.model()
    assert start.model().endswith("on left-out sites, and it was left at that.")


def test_where_heads_are_generated_the_model_is_the_prior():
    target = Target.of("head", partial(nn.Linear, 4, 3), (4,), 3)
    symmetry = OutputSymmetry.of(target, enabled=True)
    config = small_generator().config
    fit = fit_without_records(target, symmetry, config, rng(2), torch.zeros(symmetry.size))
    assert (
        fit.model() == "Prior: sites solve their heads with a pull towards it, and need no draws."
    )
