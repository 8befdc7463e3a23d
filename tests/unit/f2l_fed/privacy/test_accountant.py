"""Clipping, noise and the ledger, against closed forms, an integral and published budgets."""

from __future__ import annotations

from dataclasses import asdict
from math import exp, log, sqrt

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm

from f2l_fed.errors import AdmissionError, UsageError
from f2l_fed.privacy.accountant import ORDERS, Ledger, Spending, renyi
from f2l_fed.privacy.gaussian_mechanism import add_noise, clip


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def exact_epsilon(sigma, delta):
    """ε of one Gaussian mechanism: Balle and Wang, ICML 2018, theorem 8."""

    def excess(epsilon):
        a, b = 0.5 / sigma, epsilon * sigma
        return norm.cdf(a - b) - exp(epsilon) * norm.cdf(-a - b) - delta

    return brentq(excess, 0, 200)


@settings(deadline=None)
@given(
    size=st.integers(1, 200),
    scale=st.floats(1e-6, 1e30),
    max_norm=st.floats(1e-3, 1e3),
    seed=st.integers(0, 99),
)
def test_a_clipped_update_is_never_too_long_and_keeps_its_direction(size, scale, max_norm, seed):
    update = torch.randn(size, generator=rng(seed)) * scale
    clipped = clip(update, max_norm)
    length = float(update.double().norm())
    assert clipped.dtype == torch.float32
    assert float(clipped.double().norm()) <= max_norm
    torch.testing.assert_close(
        clipped.double(), update.double() * min(1, max_norm / length), rtol=1e-6, atol=1e-30
    )


def test_short_updates_pass_untouched():
    update = torch.randn(50, generator=rng())
    assert torch.equal(clip(update, 1e3), update)
    assert torch.equal(clip(torch.zeros(3), 1.0), torch.zeros(3))


def test_noise_has_the_width_that_was_paid_for_and_hits_every_coordinate():
    update = torch.full((200_000,), 1.0)
    sent = add_noise(update, max_norm=2.0, noise_multiplier=1.5, rng=rng(1))
    noise = (sent - clip(update, 2.0)) / 3.0
    assert abs(float(noise.mean())) < 0.01
    assert abs(float(noise.std()) - 1) < 0.01
    assert abs(float((noise[1:] * noise[:-1]).mean())) < 0.01
    assert sent.dtype == torch.float32


def test_equal_generators_draw_equal_noise_and_others_do_not():
    update = torch.ones(20)

    def draw(seed):
        return add_noise(update, max_norm=1.0, noise_multiplier=1.0, rng=rng(seed))

    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_update_that_no_scaling_could_bound_is_refused(bad):
    with pytest.raises(AdmissionError, match="not finite"):
        clip(torch.tensor([1.0, bad]), 1.0)
    with pytest.raises(AdmissionError, match="not finite"):
        add_noise(torch.tensor([1.0, bad]), max_norm=1.0, noise_multiplier=1.0, rng=rng())


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_lengths_and_noise_must_be_positive(bad):
    with pytest.raises(UsageError, match="max_norm"):
        clip(torch.ones(2), bad)
    with pytest.raises(UsageError, match="noise_multiplier"):
        add_noise(torch.ones(2), max_norm=1.0, noise_multiplier=bad, rng=rng())
    with pytest.raises(UsageError, match="noise_multiplier"):
        Ledger().spend(bad, 1.0, 1)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 4.0])
def test_without_sampling_the_divergence_is_that_of_two_gaussians(sigma):
    for order in ORDERS:
        expected = order / (2 * sigma**2)
        assert renyi(order, noise_multiplier=sigma, sampling_rate=1.0) == pytest.approx(expected)
        nearly = renyi(order, noise_multiplier=sigma, sampling_rate=1 - 1e-12)
        assert nearly == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("order", [2, 3, 8, 20])
@pytest.mark.parametrize(("sigma", "q"), [(1.0, 0.1), (0.8, 0.5), (3.0, 0.01)])
def test_with_sampling_the_divergence_is_the_integral_that_defines_it(order, sigma, q):
    def integrand(z):
        ratio = log(1 - q + q * exp((2 * z - 1) / (2 * sigma**2)))
        return exp(norm.logpdf(z, scale=sigma) + order * ratio)

    ends = (-15 * sigma, order + 15 * sigma)
    moment = quad(integrand, *ends, epsabs=0, epsrel=1e-11, limit=500)[0]
    assert renyi(order, noise_multiplier=sigma, sampling_rate=q) == pytest.approx(
        log(moment) / (order - 1), rel=1e-6
    )


def test_rare_sampling_under_strong_noise_keeps_its_digits():
    q, sigma = 1e-7, 50.0
    # To first order in q², the divergence is a q² (exp(1 / s²) - 1) / 2.
    expected = 5 * q**2 * (exp(1 / sigma**2) - 1) / 2
    assert renyi(5, noise_multiplier=sigma, sampling_rate=q) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("order", ORDERS)
def test_no_order_overflows(order):
    for sigma in (1e-3, 1.0, 1e6):
        for q in (1e-6, 0.5, 1.0):
            value = renyi(order, noise_multiplier=sigma, sampling_rate=q)
            assert 0 <= value < float("inf")


@pytest.mark.parametrize(
    ("noise", "epochs", "published"), [(1.3, 15, 1.19), (1.1, 60, 3.01), (0.7, 45, 7.10)]
)
def test_budgets_published_for_mnist_come_out_with_the_conversion_of_their_time(
    noise, epochs, published
):
    ledger = Ledger().spend(noise, 256 / 60_000, epochs * 60_000 // 256)
    delta = 1e-5
    classic = min(ledger.renyi(order) + log(1 / delta) / (order - 1) for order in ORDERS)
    # Published with fractional orders too, which are a little tighter for large budgets.
    assert classic == pytest.approx(published, rel=0.02)
    assert 0.75 * classic < ledger.epsilon(delta) < classic


@pytest.mark.parametrize("sigma", [1.0, 2.0, 5.0, 20.0])
@pytest.mark.parametrize("steps", [1, 16])
def test_the_bound_lies_above_the_exact_budget_of_gaussians_but_not_far(sigma, steps):
    delta = 1e-5
    exact = exact_epsilon(sigma / sqrt(steps), delta)
    bound = Ledger().spend(sigma, 1.0, steps).epsilon(delta)
    assert exact <= bound <= 1.15 * exact + 0.05


def test_a_ledger_adds_up_in_any_order_and_in_any_portions():
    a = Ledger().spend(1.0, 0.1, 30).spend(2.0, 1.0, 4).spend(1.0, 0.1, 70)
    b = Ledger().spend(2.0, 1.0, 4).spend(1.0, 0.1, 100)
    assert len(a.spent) == 2
    assert a.epsilon(1e-6) == pytest.approx(b.epsilon(1e-6), rel=1e-12)


def test_spending_returns_a_new_ledger_that_can_be_stored_and_read_back():
    empty = Ledger()
    ledger = empty.spend(1.2, 0.05, 10).spend(1.2, 1.0, 1)
    assert empty.spent == ()
    assert empty.epsilon(1e-5) == 0
    stored = [asdict(spending) for spending in ledger.spent]
    assert Ledger(spent=tuple(Spending(**spending) for spending in stored)) == ledger


def test_more_steps_less_noise_wider_sampling_and_smaller_delta_all_cost_more():
    def cost(sigma=1.0, q=0.1, steps=100, delta=1e-5):
        return Ledger().spend(sigma, q, steps).epsilon(delta)

    base = cost()
    assert cost(steps=200) > base
    assert cost(sigma=0.9) > base
    assert cost(q=0.2) > base
    assert cost(delta=1e-6) > base


def test_nothing_spent_costs_nothing():
    assert Ledger().spend(1.0, 0.1, 0).epsilon(1e-5) == 0


@pytest.mark.parametrize("q", [0.0, 1.1, -0.1])
def test_a_sampling_rate_must_be_a_probability(q):
    with pytest.raises(UsageError, match="sampling_rate"):
        Ledger().spend(1.0, q, 1)


def test_negative_steps_and_impossible_deltas_are_refused():
    with pytest.raises(UsageError, match="steps"):
        Ledger().spend(1.0, 0.1, -1)
    for delta in (0.0, 1.0):
        with pytest.raises(UsageError, match="delta"):
            Ledger().epsilon(delta)
