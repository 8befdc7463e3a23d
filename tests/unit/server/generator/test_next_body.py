"""The next body: the mean of few sites, a robust average of many, and never far away."""

from __future__ import annotations

import pytest
import torch

from f2l_fed.generator.config import AggregateConfig
from server.federation.body_updates import BodyUpdate
from server.generator.next_body import CLIPPED_FROM, ROBUST_FROM, next_body
from tests.support.small import rng

BODY = 10 * torch.randn(50, generator=rng(1))
DEFAULT = AggregateConfig()


def updates(rows):
    return [
        BodyUpdate(site=f"site-{number:03d}", round=1, body=row) for number, row in enumerate(rows)
    ]


def following(rows, config=DEFAULT, first=BODY):
    return next_body(BODY, updates(rows), config, first=first)


def honest(count, seed=0):
    """Changes of one direction with some noise."""
    draws = rng(seed)
    return BODY + 1 + 0.3 * torch.randn(count, 50, generator=draws)


def test_without_updates_the_body_stays():
    assert torch.equal(following([]), BODY)


def test_two_sites_are_averaged():
    rows = honest(CLIPPED_FROM - 1)
    torch.testing.assert_close(following(rows), rows.mean(0))


@pytest.mark.parametrize("count", [CLIPPED_FROM, ROBUST_FROM - 1])
def test_of_few_sites_none_counts_for_more_than_a_middling_one(count):
    rows = honest(count)
    clean = following(rows)
    torch.testing.assert_close(clean, rows.mean(0), rtol=0, atol=0.1)
    rows[0] = BODY - 1e9 * (rows[0] - BODY)
    longest = float((rows[1:] - BODY).norm(dim=1).max())
    assert float((following(rows) - clean).norm()) <= 2.1 * longest / count


def test_equal_updates_are_the_average_exactly():
    for count in (1, 3, 20):
        row = BODY + torch.randn(50, generator=rng(3))
        assert torch.equal(following([row] * count), BODY + (row - BODY))


@pytest.mark.parametrize("factor", [-5.0, -1.0, 1e6])
@pytest.mark.parametrize("count", [ROBUST_FROM, 40])
def test_three_in_ten_liars_move_it_little(count, factor):
    rows = honest(count)
    clean = following(rows)
    liars = int(0.3 * count)
    rows[:liars] = BODY + factor * (rows[:liars] - BODY)
    moved = following(rows)
    assert float((moved - clean).norm()) < 0.3 * float((clean - BODY).norm())
    assert float(torch.cosine_similarity(moved - BODY, clean - BODY, dim=0)) > 0.95


def test_changes_of_liars_count_for_nothing_where_many_are_honest():
    rows = honest(40)
    without = following(rows[12:])
    way = torch.randn(50, generator=rng(6))
    rows[:12] = BODY + way * (rows[12:] - BODY).norm(dim=1).mean() / way.norm()
    torch.testing.assert_close(following(rows), without, rtol=0, atol=0.02)


def test_noised_changes_alone_are_all_averaged():
    """As long as eight signals, so that hardly anything of them is common."""
    noise = torch.randn(40, 2000, generator=rng(8))
    body = 10 * torch.ones(2000)
    rows = body + 1 / 8 + noise
    moved = next_body(body, updates(rows), DEFAULT, first=body) - body
    assert float(torch.cosine_similarity(moved, (rows - body).mean(0), dim=0)) > 0.97


def test_changes_without_anything_in_common_still_have_an_average():
    draws = rng(7)
    for _ in range(20):
        rows = BODY + torch.randn(ROBUST_FROM, 50, generator=draws)
        assert bool(following(torch.cat([rows, 2 * BODY - rows])).isfinite().all())
    assert torch.equal(following(BODY.expand(12, -1)), BODY)


def test_a_rule_that_is_set_is_the_one_that_is_used():
    rows = honest(20)
    median = following(rows, AggregateConfig(rule="median"))
    torch.testing.assert_close(median, BODY + (rows - BODY).quantile(0.5, dim=0), atol=0.2, rtol=0)
    assert not torch.equal(median, following(rows))


def test_more_liars_than_a_trimmed_mean_can_bear_make_it_a_median():
    rows = honest(4)
    config = AggregateConfig(rule="trimmed_mean", byzantine=2)
    assert torch.equal(following(rows, config), following(rows, AggregateConfig(rule="median")))


@pytest.mark.parametrize("length", [0.5, 4.0])
def test_the_change_is_at_most_what_sites_go_along_with(length):
    """They compare with the last body, and newcomers with the first."""
    direction = torch.randn(50, generator=rng(4))
    direction *= length * BODY.norm() / direction.norm()
    for share in (1.0, 0.25):
        moved = following([BODY + direction], first=share * BODY) - BODY
        expected = min(length, 2.5 * share) * float(BODY.norm())
        assert float(moved.norm()) == pytest.approx(expected, rel=1e-4)
        assert float(torch.cosine_similarity(moved, direction, dim=0)) > 0.999


def test_the_change_of_a_body_of_zeros_is_bounded_too():
    zero = torch.zeros(50)
    near = updates(0.1 * torch.ones(4, 50))
    torch.testing.assert_close(next_body(zero, near, DEFAULT, first=zero), near[0].body)
    far = next_body(zero, updates(10 * torch.ones(4, 50)), DEFAULT, first=zero)
    assert float(far.norm()) == pytest.approx(2.5)
