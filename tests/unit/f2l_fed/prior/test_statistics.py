"""Statistics of shards add up to the map of all examples, and choose a strength as good as any."""

from __future__ import annotations

import pytest
import torch

from f2l_fed.errors import UsageError
from f2l_fed.matrices import blocks
from f2l_fed.prior.linear_prior import fit_prior
from f2l_fed.prior.ridge import fit_ridge
from f2l_fed.prior.statistics import (
    PriorStatistics,
    RidgeStatistics,
    fit_prior_statistics,
    fit_statistics,
)
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from tests.support.small import rng


def data(n=90, p=12, q=7):
    draws = rng(0)
    x = torch.randn(n, p, generator=draws) + 2
    return x, x @ torch.randn(p, q, generator=draws) + 3 + torch.randn(n, q, generator=draws)


@pytest.mark.parametrize("centre", [True, False])
def test_shards_give_the_map_of_all_examples(monkeypatch, centre):
    x, y = data()
    whole = fit_ridge(x, y, centre=centre)
    monkeypatch.setattr(blocks, "_BLOCK", 200)
    shards = [RidgeStatistics.of(x[some], y[some]) for some in torch.arange(90).split([20, 30, 40])]
    total = shards[0] + shards[1] + shards[2]
    found = total.map(whole.strength, centre=centre)
    torch.testing.assert_close(found(x), whole.map(x), rtol=0, atol=1e-4)
    missed = (whole.map(x) - y).double().square().sum()
    assert total.error(found) == pytest.approx(float(missed), rel=1e-4)
    less = total - shards[1]
    torch.testing.assert_close(less.xx, (shards[0] + shards[2]).xx)


def test_the_strength_is_that_with_which_others_predict_a_shard_best():
    x, y = data(n=60, p=40)
    groups = torch.arange(60).split(15)
    shards = [RidgeStatistics.of(x[own], y[own]) for own in groups]
    found, strength = fit_statistics(shards)
    left_out = fit_ridge(x, y, group=15, standard_errors=0)
    assert strength == pytest.approx(left_out.strength, rel=1e-6)
    torch.testing.assert_close(found(x), left_out.map(x), rtol=0, atol=1e-3)


def test_centres_of_heads_make_the_prior_of_all_their_sites():
    symmetry = OutputSymmetry(torch.arange(0), torch.arange(15).view(3, 5), 15)
    draws = rng(1)
    slope = torch.randn(5, 5, generator=draws)
    contexts = torch.randn(80, 2, 3, 5, generator=draws)
    weights = contexts @ slope + 0.1 * torch.randn(contexts.shape, generator=draws)
    contexts, weights, anchor = contexts.flatten(2), weights.flatten(2), torch.zeros(15)
    shards = [
        PriorStatistics.of(contexts[own], weights[own], symmetry, anchor)
        for own in torch.arange(80).split(20)
    ]
    found = fit_prior_statistics(shards, symmetry, anchor)(contexts.flatten(0, 1))
    whole = fit_prior(contexts, weights, symmetry, anchor).prior(contexts.flatten(0, 1))
    spread = weights.std()
    assert float((found - whole).square().mean().sqrt()) < 0.02 * spread
    assert float((found.view_as(weights) - weights).square().mean().sqrt()) < 0.15 * spread


def test_one_shard_and_no_examples_are_refused():
    x, y = data()
    with pytest.raises(UsageError, match="left out"):
        fit_statistics([RidgeStatistics.of(x, y)])
    shared = OutputSymmetry(torch.arange(12), torch.empty(0, 0, dtype=torch.int64), 12)
    with pytest.raises(UsageError, match="no output rows"):
        PriorStatistics.of(x[:, None], x[:, None], shared, x[0])
    with pytest.raises(UsageError, match="no examples"):
        RidgeStatistics.of(x[:0], y[:0])
