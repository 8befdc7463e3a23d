"""The ridge map against the normal equations, its cross-validation against explicit refits."""

from __future__ import annotations

import pytest
import torch

from f2l_fed.matrices import blocks
from f2l_fed.prior import ridge
from f2l_fed.prior.ridge import fit_ridge
from tests.support.small import rng

SIZES = [(40, 7), (20, 33)]
GRID = 25


def data(n, p, q=4, noise=0.5, seed=0):
    draws = rng(seed)
    x = torch.randn(n, p, generator=draws, dtype=torch.float64) + 1
    slope = torch.randn(p, q, generator=draws, dtype=torch.float64) / p**0.5
    return x, x @ slope + 2 + noise * torch.randn(n, q, generator=draws, dtype=torch.float64)


def left_out(x, y, **settings):
    """The predictions of a fit without the group of each example."""
    return fit_ridge(x, y, **settings).held_out(y)


def solved(x, y, strength, *, centre):
    """The normal equations; a function of further features."""
    x_mean, y_mean = (x.mean(0), y.mean(0)) if centre else (0 * x[0], 0 * y[0])
    xc, yc = x - x_mean, y - y_mean
    slope = torch.linalg.solve(xc.T @ xc + strength * torch.eye(x.shape[1]).double(), xc.T @ yc)
    return lambda fresh: (fresh - x_mean) @ slope + y_mean


def refits(x, y, strength, *, group, centre):
    """Each example's prediction by a map fitted without its group."""
    found, index = torch.empty_like(y), torch.arange(len(x))
    for first in range(0, len(x), group):
        out = (index >= first) & (index < first + group)
        found[out] = solved(x[~out], y[~out], strength, centre=centre)(x[out])
    return found


def scores(x, y, *, group, centre):
    """The grid of strengths, and at each the squared error of every left-out group."""
    xc = x - x.mean(0) if centre else x
    largest = torch.linalg.matrix_norm(xc, 2) ** 2
    grid = largest * torch.logspace(-6, 2, GRID, dtype=torch.float64)
    missed = [refits(x, y, strength, group=group, centre=centre) - y for strength in grid]
    return grid, torch.stack([m.square().sum(1).view(-1, group).sum(1) for m in missed])


@pytest.mark.parametrize(("n", "p"), SIZES)
@pytest.mark.parametrize("centre", [True, False])
def test_the_map_solves_the_normal_equations_at_its_strength(n, p, centre):
    x, y = data(n, p)
    fit = fit_ridge(x, y, centre=centre)
    fresh, _ = data(5, p, seed=1)
    expected = solved(x, y, fit.strength, centre=centre)(fresh)
    torch.testing.assert_close(fit.map(fresh.float()), expected.float(), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("n", "p"), SIZES)
@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("group", [1, 5])
def test_held_out_predictions_are_those_of_refits_without_the_group(n, p, centre, group):
    x, y = data(n, p)
    fit = fit_ridge(x, y, group=group, centre=centre)
    expected = refits(x, y, fit.strength, group=group, centre=centre)
    torch.testing.assert_close(fit.held_out(y), expected.float(), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("n", "p"), SIZES)
@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("group", [1, 5])
def test_the_strength_is_the_largest_within_one_standard_error_of_the_best(n, p, centre, group):
    x, y = data(n, p, noise=1.5)
    grid, score = scores(x, y, group=group, centre=centre)
    mean = score.mean(1)
    best = int(mean.argmin())
    error = score[best].std(correction=0) / score.shape[1] ** 0.5
    chosen = fit_ridge(x, y, group=group, centre=centre, strengths=GRID).strength
    assert chosen >= float(grid[best]) * (1 - 1e-9)
    within = grid[mean <= mean[best] + error]
    assert chosen == pytest.approx(float(within.max()), rel=1e-6)


def test_one_standard_error_makes_a_noisy_fit_plainer():
    x, y = data(40, 7, noise=1.5)
    grid, score = scores(x, y, group=1, centre=True)
    assert fit_ridge(x, y).strength > 1.5 * float(grid[score.mean(1).argmin()])


def test_what_features_say_nothing_about_is_predicted_by_its_mean():
    x = torch.randn(60, 5, generator=rng(0))
    y = 3 + torch.randn(60, 2, generator=rng(1))
    fit = fit_ridge(x, y)
    assert (fit.map(x) - y.mean(0)).std() < 0.15


def test_what_is_linear_is_found_however_few_the_features():
    x, y = data(60, 3, noise=0.0)
    fit = fit_ridge(x, y)
    residual = fit.held_out(y) - y.float()
    assert residual.square().mean() < 1e-3 * y.var()


def test_without_an_intercept_zero_is_mapped_to_zero():
    x, y = data(40, 7)
    assert not fit_ridge(x, y, centre=False).map(torch.zeros(1, 7)).any()


def test_constant_features_add_nothing_and_break_nothing():
    x, y = data(20, 3)
    torch.testing.assert_close(left_out(torch.cat([x, torch.ones(20, 2)], 1), y), left_out(x, y))
    fit = fit_ridge(torch.ones(20, 2), y)
    torch.testing.assert_close(fit.map(torch.ones(1, 2))[0], y.mean(0).float())


@pytest.mark.parametrize(("n", "p"), SIZES)
@pytest.mark.parametrize("centre", [True, False])
def test_a_prediction_is_the_sum_of_the_outputs_by_their_weights(n, p, centre):
    x, y = data(n, p)
    fit = fit_ridge(x, y, group=5, centre=centre)
    fresh, _ = data(3, p, seed=1)
    torch.testing.assert_close(
        fit.weights(fresh.float()) @ y, fit.map(fresh.float()).double(), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize(("n", "p"), SIZES)
@pytest.mark.parametrize("centre", [True, False])
def test_a_held_out_prediction_is_such_a_sum_without_its_own_group(n, p, centre):
    x, y = data(n, p)
    fit = fit_ridge(x, y, group=5, centre=centre)
    group = slice(10, 15)
    weights = fit.held_out_weights(group)
    assert not weights[:, group].any()
    torch.testing.assert_close(weights @ y, fit.held_out(y)[group].double(), rtol=0, atol=1e-4)


def low_rank(n, p, q, rank, noise=0.1):
    draws = rng(3)
    x = torch.randn(n, rank, generator=draws) @ torch.randn(rank, p, generator=draws)
    x = x + noise * torch.randn(n, p, generator=draws)
    slope = torch.randn(p, q, generator=draws) / p**0.5
    return x, x @ slope + noise * torch.randn(n, q, generator=draws)


@pytest.mark.parametrize(("n", "p"), [(60, 200), (200, 50)])
def test_a_bounded_rank_costs_next_to_nothing_where_little_is_told(n, p):
    x, y = low_rank(n, p, 40, rank=6)
    whole, bounded = fit_ridge(x, y), fit_ridge(x, y, rank=30)
    assert bounded.strength == whole.strength
    torch.testing.assert_close(bounded.held_out(y), whole.held_out(y))
    assert bounded.map.left.shape[1] == len(bounded.map.right) < len(whole.map.right)
    missed = (bounded.map(x) - whole.map(x)).square().sum() / (y - y.mean(0)).square().sum()
    assert missed < 2e-3
    torch.testing.assert_close(
        bounded.weights(x) @ y.double(), bounded.map(x).double(), rtol=0, atol=1e-4
    )


def test_of_maps_of_a_rank_the_nearest_is_kept():
    x, y = low_rank(80, 60, 50, rank=40)
    whole, bounded = fit_ridge(x, y).map(x), fit_ridge(x, y, rank=20)
    assert len(bounded.map.right) == 20
    centred = whole - whole.mean(0)
    nearest = torch.linalg.svdvals(centred.double())[20:].square().sum().sqrt()
    missed = (bounded.map(x) - whole).double().norm()
    assert missed <= 1.01 * nearest


@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize(("p", "q"), [(30, 300), (1200, 1300)])
def test_many_examples_choose_the_strength_that_all_outputs_would(monkeypatch, group, p, q):
    x, y = low_rank(1100, p, q, rank=20, noise=1.0)
    found = fit_ridge(x, y, group=group)
    monkeypatch.setattr(ridge, "_EXACT", 2000)
    exact = fit_ridge(x, y, group=group)
    assert found.strength == exact.strength
    torch.testing.assert_close(found.held_out(y), exact.held_out(y))


@pytest.mark.parametrize("group", [1, 4])
def test_some_of_many_examples_choose_nearly_the_strength_that_all_would(monkeypatch, group):
    x, y = low_rank(1200, 60, 80, rank=20, noise=1.0)
    exact = fit_ridge(x, y, group=group)
    monkeypatch.setattr(ridge, "_SCORED", 400)
    found = fit_ridge(x, y, group=group)
    step = 10 ** (8 / 24)
    assert exact.strength / step * 0.99 < found.strength < exact.strength * step * 1.01
    lost = [(fit.held_out(y) - y).square().sum() for fit in (found, exact)]
    assert lost[0] < 1.001 * lost[1]


def test_the_size_of_blocks_changes_nothing(monkeypatch):
    x, y = low_rank(90, 70, 110, rank=20)
    tall = x.T, y[:70, :40]
    whole, other = fit_ridge(x, y, rank=24), fit_ridge(*tall)
    monkeypatch.setattr(blocks, "_BLOCK", 1000)
    torch.testing.assert_close(left_out(x, y, rank=24), whole.held_out(y))
    torch.testing.assert_close(fit_ridge(x, y, rank=24).map(x), whole.map(x))
    torch.testing.assert_close(left_out(*tall), other.held_out(tall[1]))


def test_maps_of_ever_other_sites_stay_of_a_rank():
    draws, total = rng(5), None
    for _ in range(6):
        x = torch.randn(20, 50, generator=draws)
        fitted = fit_ridge(x, torch.randn(20, 40, generator=draws)).map
        total = fitted if total is None else total.plus(fitted, 0.5, rank=30)
    assert len(total.right) == 30


def test_a_truncated_map_says_the_principal_part_of_what_the_map_says():
    x, y = (part.float() for part in data(40, 12, q=9))
    fitted = fit_ridge(x, y).map
    said = fitted(x) - fitted.y_mean
    u, s, v = torch.linalg.svd(said.double(), full_matrices=False)
    for rank in (1, 3, 8):
        small = fitted.truncated(x, rank)
        assert small.left.shape == (12, rank)
        best = u[:, :rank] * s[:rank] @ v[:rank]
        torch.testing.assert_close(small(x) - fitted.y_mean, best.float(), rtol=1e-4, atol=1e-4)
    assert fitted.truncated(x, 12) is fitted


def test_a_map_of_low_rank_is_truncated_without_loss_for_any_features():
    x, y = (part.float() for part in data(40, 12, q=9))
    fitted = fit_ridge(
        x, y[:, :3] @ torch.randn(3, 9, generator=torch.Generator().manual_seed(1))
    ).map
    other = torch.randn(7, 12, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(fitted.truncated(x, 3)(other), fitted(other), rtol=1e-3, atol=1e-3)
