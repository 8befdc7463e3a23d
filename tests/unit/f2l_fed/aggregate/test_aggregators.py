"""Aggregators against plain references in float64, at block borders, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from f2l_fed.aggregate import AGGREGATORS, Updates, aggregate
from f2l_fed.aggregate.clipped_mean import clipped_mean
from f2l_fed.aggregate.gram import gram_matrix, squared_distances
from f2l_fed.aggregate.median import coordinate_median
from f2l_fed.aggregate.multi_krum import krum_selection
from f2l_fed.aggregate.trimmed_mean import coordinate_trimmed_mean
from f2l_fed.errors import AdmissionError, UsageError


@pytest.fixture
def rows():
    return torch.randn(11, 37, generator=torch.Generator().manual_seed(5)) + 2


@pytest.fixture
def weights():
    return torch.rand(11, generator=torch.Generator().manual_seed(6)) + 0.1


def same(found, reference, tolerance=1e-6):
    np.testing.assert_allclose(found.numpy(), reference, rtol=tolerance, atol=tolerance)


def test_the_mean_is_that_of_numpy(rows, weights):
    same(aggregate("mean", rows, weights), np.average(rows.double(), axis=0, weights=weights))


def test_the_mean_keeps_small_updates_that_float32_would_lose():
    rows = torch.cat([torch.full((1, 3), 2.0**25), torch.ones(4000, 3)])
    exact = (2.0**25 + 4000) / 4001
    same(aggregate("mean", rows, torch.ones(4001)), np.full(3, exact), 1e-7)


def test_the_clipped_mean_clips_to_the_median_length(rows):
    x = rows.double().numpy()
    lengths = np.linalg.norm(x, axis=1)
    clipped = x * np.minimum(1, np.median(lengths) / lengths)[:, None]
    same(aggregate("clipped_mean", rows, torch.ones(11)), clipped.mean(axis=0))


def test_a_clipped_mean_of_given_length_folds_over_shards(rows, weights):
    x, w = rows.double().numpy(), weights.double().numpy()
    clipped = x * np.minimum(1, 12 / np.linalg.norm(x, axis=1))[:, None]
    rule = clipped_mean(12.0)
    state = rule.accumulate(rule.init(37), rows[:4], weights[:4])
    state = rule.merge(state, rule.accumulate(rule.init(37), rows[4:], weights[4:]))
    same(rule.finalise(state), np.average(clipped, axis=0, weights=w))


def test_with_equal_weights_the_median_is_that_of_numpy(rows):
    for n in (10, 11):
        ones = torch.full((n,), 0.1)
        same(aggregate("median", rows[:n], ones), np.median(rows[:n].double(), axis=0))


def test_the_trimmed_mean_drops_the_extremes_of_every_coordinate(rows, weights):
    x, w = rows.double().numpy(), weights.double().numpy()
    reference = []
    for column in x.T:
        kept = np.argsort(column)[3:-3]
        reference.append(np.average(column[kept], weights=w[kept]))
    same(aggregate("trimmed_mean", rows, weights, byzantine=3), reference)


def test_multi_krum_scores_as_the_paper_does(rows, weights):
    x, f = rows.double().numpy(), 3
    squares = ((x[:, None] - x) ** 2).sum(axis=2)
    near = 11 - f - 2
    scores = np.sort(squares, axis=1)[:, 1 : near + 1].sum(axis=1)
    best = np.argsort(scores)[:near]
    chosen = krum_selection(gram_matrix(Updates.of(37, rows, weights)), f)
    assert set(chosen.nonzero().flatten().tolist()) == set(best)
    same(
        aggregate("multi_krum", rows, weights, byzantine=f),
        np.average(x[best], axis=0, weights=weights[best].double()),
    )


def test_the_geometric_median_minimises_the_sum_of_distances(rows, weights):
    x, w = rows[:, :5].double().numpy(), weights.double().numpy()

    def cost(point):
        offsets = point - x
        lengths = np.linalg.norm(offsets, axis=1)
        return w @ lengths, (w / lengths) @ offsets

    best = minimize(cost, x.mean(axis=0), jac=True, options={"gtol": 1e-9})
    same(aggregate("geometric_median", rows[:, :5], weights), best.x, 1e-5)


def test_the_geometric_median_is_the_update_that_holds_half_the_weight(rows):
    weights = torch.ones(11)
    weights[4] = 10
    torch.testing.assert_close(aggregate("geometric_median", rows, weights), rows[4])


def test_the_geometric_median_is_as_exact_far_from_the_origin():
    square = torch.tensor([[1.0, 0], [-1, 0], [0, 3], [0, -2]])
    found = aggregate("geometric_median", square + 4096, torch.ones(4))
    torch.testing.assert_close(found, torch.full((2,), 4096.0), rtol=0, atol=1e-3)


def test_blocks_of_columns_do_not_show(rows, weights):
    parts = Updates.of(37, rows[:5], weights[:5]) + Updates.of(37, rows[5:], weights[5:])
    for block in (1, 5, 37, 100):
        assert torch.equal(coordinate_median(parts, block=block), coordinate_median(parts))
        torch.testing.assert_close(
            coordinate_trimmed_mean(parts, byzantine=2, block=block),
            coordinate_trimmed_mean(parts, byzantine=2),
        )
        distances = squared_distances(gram_matrix(parts, block=block)).sqrt()
        torch.testing.assert_close(distances, torch.cdist(rows.double(), rows.double()))


@pytest.mark.parametrize("name", AGGREGATORS)
class TestEveryAggregator:
    def test_returns_one_float32_update(self, name, rows, weights):
        found = aggregate(name, rows, weights)
        assert found.shape == (37,)
        assert found.dtype == torch.float32

    def test_refuses_an_update_that_is_not_finite_and_says_which(self, name, rows, weights):
        rows[7, 3] = torch.nan
        with pytest.raises(AdmissionError, match="not finite") as error:
            aggregate(name, rows, weights)
        assert error.value.where == "update 7"

    @pytest.mark.parametrize("bad", [0.0, -1.0, float("inf"), float("nan")])
    def test_refuses_a_weight_that_is_not_positive(self, name, rows, weights, bad):
        weights[2] = bad
        with pytest.raises(AdmissionError, match="weight is not positive") as error:
            aggregate(name, rows, weights)
        assert error.value.where == "update 2"

    def test_refuses_an_aggregate_of_nothing(self, name):
        with pytest.raises(AdmissionError, match="no updates"):
            aggregate(name, torch.empty(0, 4), torch.empty(0))

    def test_refuses_updates_of_another_length(self, name, rows, weights):
        rule = AGGREGATORS[name](0)
        with pytest.raises(UsageError, match="matrix"):
            rule.accumulate(rule.init(36), rows, weights)

    def test_refuses_another_number_of_weights(self, name, rows, weights):
        with pytest.raises(UsageError, match="one weight"):
            aggregate(name, rows, weights[1:])


@pytest.mark.parametrize(
    ("name", "byzantine", "least"),
    [
        ("clipped_mean", 2, 5),
        ("median", 2, 5),
        ("trimmed_mean", 2, 5),
        ("geometric_median", 2, 5),
        ("multi_krum", 2, 7),
        ("multi_krum", 0, 3),
    ],
)
def test_too_few_updates_for_that_many_byzantine_ones_are_refused(name, byzantine, least, rows):
    ones = torch.ones(11)
    aggregate(name, rows[:least], ones[:least], byzantine=byzantine)
    with pytest.raises(AdmissionError):
        aggregate(name, rows[: least - 1], ones[: least - 1], byzantine=byzantine)


@pytest.mark.parametrize("name", ["clipped_mean", "median", "geometric_median"])
def test_a_byzantine_update_with_half_of_the_weight_is_refused(name, rows):
    weights = torch.ones(11)
    weights[0] = 10
    with pytest.raises(AdmissionError, match="outvote") as error:
        aggregate(name, rows, weights, byzantine=1)
    assert error.value.got == "50%"


def test_the_mean_does_not_pretend_to_tolerate_byzantine_updates(rows, weights):
    with pytest.raises(UsageError, match="geometric_median"):
        aggregate("mean", rows, weights, byzantine=1).sum()


def test_unknown_names_and_negative_numbers_are_refused(rows, weights):
    with pytest.raises(UsageError, match="unknown aggregator"):
        aggregate("average", rows, weights)
    with pytest.raises(UsageError, match="negative"):
        aggregate("median", rows, weights, byzantine=-1)
    with pytest.raises(UsageError, match="max_norm"):
        clipped_mean(0.0)
