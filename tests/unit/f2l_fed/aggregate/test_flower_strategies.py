"""Our aggregators next to Flower's strategies: equal where those are right, and where they aren't.

Flower 1.41 has no geometric median and no clipping of updates to the others' length.
"""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from flwr.serverapp.strategy import FedAvg, FedMedian, FedTrimmedAvg, MultiKrum

from f2l_fed.aggregate import aggregate
from f2l_fed.errors import AdmissionError
from tests.support.flower_strategies import flower_aggregate, replies

ONES = [1.0] * 11


@pytest.fixture(autouse=True)
def quiet_flower():
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


@pytest.fixture
def rows():
    return torch.randn(11, 40, generator=torch.Generator().manual_seed(3)).numpy()


def ours(name, rows, weights=ONES, byzantine=0):
    found = aggregate(name, torch.from_numpy(rows), torch.tensor(weights), byzantine=byzantine)
    return found.numpy()


def flowers(strategy, rows, weights=ONES):
    return flower_aggregate(strategy, replies(rows, weights, cuts=[1, 20]))


@pytest.mark.parametrize("weights", [ONES, [float(n) for n in range(1, 12)]])
def test_the_mean_is_that_of_fedavg(rows, weights):
    np.testing.assert_allclose(
        ours("mean", rows, weights), flowers(FedAvg(), rows, weights), atol=1e-6
    )


def test_fedavg_loses_small_updates_that_the_mean_keeps():
    rows = np.ones((4001, 3), np.float32)
    rows[0] = 2.0**25
    exact, ones = (2.0**25 + 4000) / 4001, [1.0] * 4001
    assert ours("mean", rows, ones) == pytest.approx(exact, rel=1e-7)
    assert flowers(FedAvg(), rows, ones) != pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("count", [10, 11])
def test_the_median_is_that_of_fedmedian_where_all_sites_weigh_the_same(rows, count):
    found = ours("median", rows[:count], ONES[:count])
    np.testing.assert_allclose(found, flowers(FedMedian(), rows[:count], ONES[:count]), atol=1e-6)


def test_fedmedian_does_not_weigh(rows):
    weights = [100.0, *ONES[1:]]
    assert np.array_equal(ours("median", rows, weights), rows[0])
    assert np.array_equal(flowers(FedMedian(), rows, weights), flowers(FedMedian(), rows))


def test_the_trimmed_mean_is_that_of_fedtrimmedavg_where_it_trims_as_many(rows):
    found = ours("trimmed_mean", rows, byzantine=2)
    np.testing.assert_allclose(found, flowers(FedTrimmedAvg(beta=0.2), rows), atol=1e-6)


def test_fedtrimmedavg_trims_none_of_few_and_lets_the_byzantine_one_in(rows):
    rows = rows[:4].copy()
    rows[0] = 1e6
    assert flowers(FedTrimmedAvg(beta=0.2), rows, ONES[:4]).min() > 1e5
    assert ours("trimmed_mean", rows, ONES[:4], byzantine=1).max() < 5


def test_multi_krum_is_that_of_flower_near_the_origin(rows):
    rows = rows.copy()
    rows[:3] *= 5
    strategy = MultiKrum(num_malicious_nodes=3, num_nodes_to_select=11 - 3 - 2)
    np.testing.assert_allclose(
        ours("multi_krum", rows, byzantine=3), flowers(strategy, rows), atol=1e-6
    )


def test_flowers_multi_krum_takes_byzantine_updates_where_the_networks_are_far_from_the_origin():
    # As networks are that share a long anchor: distances drown in the rounding of float32.
    def reach(select):
        found = []
        for seed in range(20):
            draws = np.random.default_rng(seed)
            rows = 0.01 * draws.standard_normal((7, 40)) + 3000
            rows[:2] += 0.3 * np.sign(draws.standard_normal(40))
            rows = rows.astype(np.float32)
            honest = rows[2:].mean(axis=0, dtype=np.float64)
            spread = np.linalg.norm(rows[2:] - honest, axis=1).max()
            found.append(np.linalg.norm(select(rows) - honest) / spread)
        return max(found)

    strategy = MultiKrum(num_malicious_nodes=2, num_nodes_to_select=7 - 2 - 2)
    assert reach(lambda rows: ours("multi_krum", rows, ONES[:7], byzantine=2)) < 1.1
    assert reach(lambda rows: flowers(strategy, rows, ONES[:7])) > 3


def test_flowers_multi_krum_does_not_mind_too_few_updates(rows):
    strategy = MultiKrum(num_malicious_nodes=2, num_nodes_to_select=2)
    assert np.isfinite(flowers(strategy, rows[:4], ONES[:4])).all()
    with pytest.raises(AdmissionError, match="too few"):
        ours("multi_krum", rows[:4], ONES[:4], byzantine=2)


@pytest.mark.parametrize("strategy", [FedAvg, FedMedian])
def test_flowers_strategies_hand_a_nan_on(rows, strategy):
    rows = rows.copy()
    rows[4, 7] = np.nan
    assert np.isnan(flowers(strategy(), rows)[7])
    with pytest.raises(AdmissionError, match="not finite"):
        ours("mean", rows)
