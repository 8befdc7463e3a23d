"""The prior is the mean of the zoo plus what a probe adds, and says how much that is."""

from __future__ import annotations

import pytest
import torch

from f2l_fed.prior import fit_prior
from f2l_fed.ridge import fit_ridge
from f2l_fed.symmetry import OutputSymmetry
from tests.support.small import records, rng, small_target

both = pytest.mark.parametrize("symmetric", [True, False])


def symmetry_of(symmetric):
    return OutputSymmetry.of(small_target(), enabled=symmetric)


@both
def test_the_mean_probe_is_answered_with_the_mean_network(symmetric):
    symmetry = symmetry_of(symmetric)
    contexts, weights = records(symmetry.size)
    fit = fit_prior(contexts, weights, symmetry)
    mean_probe = symmetry.split(contexts.mean(0, keepdim=True))
    expected = fit.prior(mean_probe).common
    torch.testing.assert_close(
        expected, symmetry.split(weights).common.mean(0, keepdim=True), rtol=0, atol=1e-5
    )


def test_without_symmetry_it_is_plain_ridge_regression():
    symmetry = symmetry_of(False)
    contexts, weights = records(symmetry.size)
    fit, plain = fit_prior(contexts, weights, symmetry), fit_ridge(contexts, weights)
    assert torch.equal(fit.prior(symmetry.split(contexts)).common, plain.map(contexts))
    assert torch.equal(symmetry.join(fit.held_out), plain.held_out)


@both
def test_a_record_does_not_speak_in_its_own_held_out_prediction(symmetric):
    symmetry = symmetry_of(symmetric)
    contexts, weights = records(symmetry.size)
    fit = fit_prior(contexts, weights, symmetry)
    held_out = symmetry.join(fit.held_out)
    seen = symmetry.join(fit.prior(symmetry.split(contexts)))
    assert (held_out - weights).norm() > 1.05 * (seen - weights).norm()


@both
def test_explained_is_the_held_out_share_of_variance(symmetric):
    symmetry = symmetry_of(symmetric)
    contexts, weights = records(symmetry.size, 200)
    fit = fit_prior(contexts, weights, symmetry)
    missed = (symmetry.join(fit.held_out) - weights).square().sum()
    # A relabelling-invariant mean has equal output rows.
    parts = symmetry.split(weights)
    spread = (parts.common - parts.common.mean(0)).square().sum() + parts.rows.square().sum()
    assert fit.explained == pytest.approx(1 - float(missed / spread), abs=1e-5)
    assert fit.explained > 0.05


@both
def test_probes_that_say_nothing_explain_nothing(symmetric):
    symmetry = symmetry_of(symmetric)
    _, weights = records(symmetry.size, 200)
    noise = torch.randn(weights.shape, generator=rng(5))
    assert abs(fit_prior(noise, weights, symmetry).explained) < 0.05
