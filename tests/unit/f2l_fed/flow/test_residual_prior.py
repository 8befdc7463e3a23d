"""A residual network learns what a linear prior can't, and nothing where there is nothing."""

from __future__ import annotations

import pytest
import torch

from f2l_fed.codec import CODECS
from f2l_fed.flow import FlowConfig
from f2l_fed.flow.residual_prior import fit_residual
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from tests.support.small import small_target

CONFIG = FlowConfig(width=32, depth=1, steps=300, lr=3e-3, check_every=25)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def task(count, miss, *, symmetric):
    """Weights whose prediction misses ``miss(factors)`` along fixed directions, and a codec."""
    target = small_target()
    symmetry = OutputSymmetry.of(target, enabled=symmetric)
    factors = torch.randn(count, 3, generator=rng(1))
    ways = torch.randn(2, 3, target.layout.size, generator=rng(2))
    expected = factors @ ways[0]
    weights = expected + miss(factors) @ ways[1]
    both = torch.cat([weights, expected])
    codec = CODECS["pca"].fit(both, symmetry, target, rng(3), common=8, rows=8)
    return weights, expected, codec, symmetry


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_nonlinear_miss_is_learned_and_known_at_new_predictions(symmetric):
    weights, expected, codec, _ = task(300, lambda f: f.square() - 1, symmetric=symmetric)
    fit = fit_residual(weights[:240], expected[:240], codec, CONFIG, rng(4))
    before, after = (
        (weights[240:] - made).square().mean() for made in (expected[240:], fit(expected[240:]))
    )
    assert fit.course.step > 0
    assert after < 0.5 * before


def test_where_nothing_can_be_learned_predictions_stay_as_they_are():
    weights, expected, codec, _ = task(
        40, lambda f: torch.randn(f.shape, generator=rng(7)), symmetric=True
    )
    still = FlowConfig(width=32, depth=1, steps=0)
    assert torch.equal(fit_residual(weights, expected, codec, still, rng(4))(expected), expected)
    fit = fit_residual(weights, expected, codec, CONFIG, rng(4))
    assert fit.course.best <= fit.course.first


def test_the_correction_commutes_with_permuted_outputs():
    weights, expected, codec, symmetry = task(100, lambda f: f.square() - 1, symmetric=True)
    fit = fit_residual(weights, expected, codec, CONFIG, rng(4))
    order = torch.randperm(symmetry.classes, generator=rng(5))

    def permuted(rows):
        return symmetry.join(symmetry.split(rows).permuted(order))

    assert fit.course.step > 0
    torch.testing.assert_close(fit(permuted(expected)), permuted(fit(expected)), rtol=0, atol=1e-4)


def test_equal_seeds_give_equal_bits():
    weights, expected, codec, _ = task(60, lambda f: f.square() - 1, symmetric=True)
    few = FlowConfig(width=8, depth=1, steps=10, check_every=5)
    one, two = (fit_residual(weights, expected, codec, few, rng(4))(expected) for _ in range(2))
    assert torch.equal(one, two)
