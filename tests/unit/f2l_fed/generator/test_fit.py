"""A generator that was fitted on no site."""

from __future__ import annotations

import pytest
import torch

from f2l_fed.generator.fit import fit_without_records
from f2l_fed.generator.serialization import load_generator, save_generator
from f2l_fed.symmetry.output_permutation import OutputSymmetry
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
