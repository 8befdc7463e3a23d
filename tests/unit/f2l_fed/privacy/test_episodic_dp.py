"""Private episodic training: its sensitivity, its clipping, its noise, and what its ledger says."""

from __future__ import annotations

import itertools
from functools import partial
from math import exp, inf, nan, sqrt

import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import norm
from torch import nn

from f2l_fed.errors import TargetError, UsageError
from f2l_fed.local_training.config import EpisodesConfig
from f2l_fed.local_training.episodic import episode_gradient
from f2l_fed.privacy import episodic_dp
from f2l_fed.privacy.accountant import Ledger, noise_multiplier_for
from f2l_fed.privacy.episodic_dp import (
    SENSITIVITY,
    clipped,
    episode_count,
    require_no_statistics,
    train_body_privately,
)
from f2l_fed.targets import Target, build_target
from f2l_fed.targets.body import Body
from tests.support.small import examples, rng

BODY = Body.of(build_target("mlp", (1, 8, 8), 3))
START = BODY.initialise(rng(1))
X, Y = examples(BODY.network, 60, seed=2)
CONFIG = EpisodesConfig(momentum=0.5)


def trained(x=X, y=Y, *, steps=1, noise=1e-12, most=1.0, lr=1.0, seed=0, body=BODY, start=START):
    return train_body_privately(
        body,
        start,
        x,
        y,
        CONFIG,
        steps,
        lr=lr,
        noise_multiplier=noise,
        max_norm=most,
        rng=rng(seed),
    )


def summed(x, y, seed):
    """The sum of the clipped gradients of one step, of at most 1 each, without noise."""
    return (START - trained(x, y, seed=seed)).double() * episode_count(len(y), 3)


@pytest.mark.parametrize("other_label", [False, True])
def test_another_example_in_the_place_of_one_moves_the_sum_by_two_lengths_at_most(
    other_label, monkeypatch
):
    """With the same chance in every episode, as the proof has it."""
    moves = []
    for one in range(20):
        x, y = X.clone(), Y.clone()
        x[one] = 50 * torch.randn(X[0].shape, generator=rng(one))
        y[one] = (y[one] + int(other_label)) % 3
        sums = []
        for inputs, labels in ((X, Y), (x, y)):
            numbers = itertools.count()

            def drawn(*arguments, numbers=numbers):
                return episode_gradient(*arguments[:-1], rng(next(numbers)))

            monkeypatch.setattr(episodic_dp, "episode_gradient", drawn)
            sums.append(summed(inputs, labels, one))
        moves.append(float((sums[1] - sums[0]).norm()))
    assert 0 < max(moves) <= SENSITIVITY * (1 + 1e-5)
    # Two clipped gradients that point apart: no smaller bound would do.
    assert max(moves) > 1


def test_episodes_have_no_example_in_common_and_use_them_all(monkeypatch):
    seen = []

    def noted(body, theta, x, y, config, draws):
        seen.append(x)
        return torch.zeros_like(theta)

    monkeypatch.setattr(episodic_dp, "episode_gradient", noted)
    trained(steps=2)
    assert len(seen) == 2 * episode_count(60, 3) == 8
    for step in (seen[:4], seen[4:]):
        together = sorted(map(tuple, torch.cat(step).flatten(1).tolist()))
        assert together == sorted(map(tuple, X.flatten(1).tolist()))
    assert not torch.equal(torch.cat(seen[:4]), torch.cat(seen[4:]))


def test_without_noise_it_is_momentum_on_the_mean_of_clipped_gradients():
    draws, theta, momentum = rng(5), START.clone(), torch.zeros_like(START)
    small = EpisodesConfig(momentum=0.5, support=2, query=3)
    for _ in range(3):
        place = torch.randint(4, Y.shape, generator=draws)
        total = torch.zeros(START.shape, dtype=torch.float64)
        for number in range(4):
            own = place == number
            gradient = episode_gradient(BODY, theta, X[own], Y[own], small, draws).double()
            total += gradient * min(1.0, 0.05 / float(gradient.norm()))
        torch.randn(START.shape, generator=draws, dtype=torch.float64)
        momentum = 0.5 * momentum + (total / 4).float()
        theta = theta - 0.3 * momentum
    found = trained(steps=3, most=0.05, lr=0.3, seed=5)
    torch.testing.assert_close(found, theta, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("noise", "most"), [(3.0, 1.0), (0.5, 4.0)])
def test_the_noise_of_the_mean_is_the_multiplier_times_the_sensitivity(noise, most):
    """Equal seeds deal alike, so the difference from the run without noise is the noise."""
    drawn = torch.cat(
        [trained(noise=noise, most=most, seed=s) - trained(most=most, seed=s) for s in range(10)]
    )
    expected = noise * 2 * most / 4
    assert float(drawn.std()) == pytest.approx(expected, rel=0.02)
    assert abs(float(drawn.mean())) < 0.02 * expected


def test_noise_adds_up_over_steps_with_momentum():
    drawn = torch.cat(
        [trained(noise=1e4, steps=2, seed=s) - trained(steps=2, seed=s) for s in range(10)]
    )
    # The first step's noise moves the body one and a half times, the second's once.
    assert float(drawn.std()) == pytest.approx(1e4 * 2 / 4 * sqrt(1.5**2 + 1), rel=0.02)


def test_a_long_gradient_is_clipped_a_short_one_kept_and_an_overflow_is_nothing():
    gradient = torch.tensor([3.0, 4.0])
    assert clipped(gradient, 10.0).tolist() == [3.0, 4.0]
    assert float(clipped(gradient, 0.5).norm()) == pytest.approx(0.5)
    assert not clipped(torch.zeros(2), 1.0).any()
    for bad in (nan, inf, -inf):
        assert not clipped(torch.tensor([1.0, bad]), 1.0).any()
    assert float(clipped(torch.full((4,), 3e38), 1.0).norm()) == pytest.approx(1.0)


def test_inputs_that_overflow_tell_nothing():
    x = X.clone()
    x[:] = 1e30
    assert bool(trained(x, noise=1.0).isfinite().all())


@pytest.mark.parametrize("count", [0, 1, 3, 7])
def test_few_examples_of_one_class_are_noise_alone(count):
    noised = trained(X[:count], torch.zeros(count, dtype=torch.int64), noise=1.0)
    assert float((noised - START).std()) == pytest.approx(2.0, rel=0.1)


def test_batch_normalisation_and_no_noise_are_refused():
    network = partial(nn.Sequential, nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))
    normalised = Body.of(Target.of("normalised", network, (4,), 2))
    with pytest.raises(TargetError, match="batch normalisation"):
        require_no_statistics(normalised)
    with pytest.raises(TargetError, match="batch normalisation"):
        trained(body=normalised, start=normalised.initialise(rng()))
    with pytest.raises(UsageError, match="noise_multiplier"):
        trained(noise=0.0)
    with pytest.raises(UsageError, match="max_norm"):
        trained(most=0.0)


def exact_epsilon(noise, steps, delta):
    """ε of so many Gaussian mechanisms: Balle and Wang, ICML 2018, theorem 8."""
    mu = sqrt(steps) / noise

    def excess(epsilon):
        a, b = mu / 2, epsilon / mu
        return norm.cdf(a - b) - exp(epsilon) * norm.cdf(-a - b) - delta

    return brentq(excess, 0, 200)


@pytest.mark.parametrize("epsilon", [2.0, 8.0])
def test_the_budget_of_all_rounds_is_above_the_exact_one_but_not_far(epsilon):
    noise = noise_multiplier_for(epsilon, 1e-5, [(1.0, 24)])
    spent = Ledger().spend(noise, 1.0, 24).epsilon(1e-5)
    assert exact_epsilon(noise, 24, 1e-5) <= spent <= epsilon
    assert exact_epsilon(noise, 24, 1e-5) > 0.85 * epsilon


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("accountant", ["RDPAccountant", "PRVAccountant"])
@pytest.mark.parametrize("epsilon", [2.0, 8.0])
def test_the_budget_agrees_with_another_librarys_accountants(accountant, epsilon):
    accountants = pytest.importorskip("opacus.accountants")
    noise = noise_multiplier_for(epsilon, 1e-5, [(1.0, 24)])
    other = getattr(accountants, accountant)()
    for _ in range(24):
        other.step(noise_multiplier=noise, sample_rate=1.0)
    ours = Ledger().spend(noise, 1.0, 24).epsilon(1e-5)
    theirs = other.get_epsilon(delta=1e-5)
    # Fractional orders are a little tighter than whole ones, exact accountants tighter still.
    assert 0.85 * ours < theirs <= 1.01 * ours
