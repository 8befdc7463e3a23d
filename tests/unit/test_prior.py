"""The prior is the mean of the zoo plus what a probe adds, and says how much that is."""

from __future__ import annotations

import pytest
import torch

from f2l_fed.prior import fit_prior
from f2l_fed.ridge import fit_ridge
from f2l_fed.symmetry import OutputSymmetry, Parts
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


def test_held_out_rows_are_predicted_without_any_row_of_their_record():
    symmetry = symmetry_of(True)
    contexts, weights = records(symmetry.size, 12)
    x, y = symmetry.split(contexts).rows.double(), symmetry.split(weights).rows.double()
    held_out = fit_prior(contexts, weights, symmetry).held_out.rows
    strength = fit_ridge(x.flatten(0, 1), y.flatten(0, 1), group=3, centre=False).strength
    for record in range(12):
        others = torch.arange(12) != record
        a, b = x[others].flatten(0, 1), y[others].flatten(0, 1)
        slope = torch.linalg.solve(a.T @ a + strength * torch.eye(6).double(), a.T @ b)
        torch.testing.assert_close(held_out[record], (x[record] @ slope).float(), rtol=0, atol=1e-4)


@both
def test_a_record_does_not_speak_in_its_own_held_out_prediction(symmetric):
    symmetry = symmetry_of(symmetric)
    contexts, weights = records(symmetry.size)
    fit = fit_prior(contexts, weights, symmetry)
    held_out = symmetry.join(fit.held_out)
    seen = symmetry.join(fit.prior(symmetry.split(contexts)))
    assert (held_out - weights).norm() > 1.05 * (seen - weights).norm()


def missed_over_spread(contexts, weights, symmetry):
    """Held-out squared error over that of the mean of all relabelled networks."""
    missed = symmetry.join(fit_prior(contexts, weights, symmetry).held_out) - weights
    parts = symmetry.split(weights)
    spread = (parts.common - parts.common.mean(0)).square().sum() + parts.rows.square().sum()
    return float(missed.square().sum() / spread)


@both
def test_probes_that_say_something_lower_the_held_out_error(symmetric):
    symmetry = symmetry_of(symmetric)
    assert missed_over_spread(*records(symmetry.size, 200), symmetry) < 0.7


@both
def test_probes_that_say_nothing_cost_little(symmetric):
    symmetry = symmetry_of(symmetric)
    _, weights = records(symmetry.size, 200)
    noise = torch.randn(weights.shape, generator=rng(5))
    assert missed_over_spread(noise, weights, symmetry) == pytest.approx(1, abs=0.05)


def test_one_output_row_speaks_for_the_others():
    """What holds for every row is found from fewer records where the symmetry may be used."""
    size, few = symmetry_of(True).size, 30
    contexts, weights = records(size, few)
    on, off = symmetry_of(True), symmetry_of(False)
    # The same map for every row, and nothing else: what the rows of a context say, doubled.
    parts = on.split(contexts)
    weights = on.join(Parts(on.split(weights).common, 2 * parts.rows))
    rows = [
        on.split(sym.join(fit_prior(contexts, weights, sym).held_out)).rows for sym in (on, off)
    ]
    errors = [(found - 2 * parts.rows).square().mean() for found in rows]
    assert errors[0] < 0.1 * errors[1]
