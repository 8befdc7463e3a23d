"""Laws that every aggregator keeps, and how far a Byzantine minority can get."""

from __future__ import annotations

from functools import partial
from math import sqrt

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from f2l_fed.aggregate import AGGREGATORS, Updates, aggregate
from f2l_fed.aggregate.clipped_mean import clipped_mean
from f2l_fed.aggregate.gram import gram_matrix
from f2l_fed.aggregate.median import coordinate_median
from f2l_fed.aggregate.merge_tree import merge_tree
from f2l_fed.aggregate.trimmed_mean import coordinate_trimmed_mean
from f2l_fed.errors import AdmissionError

quick = settings(deadline=None, max_examples=40)
every = pytest.mark.parametrize("name", AGGREGATORS)
seeds = st.integers(0, 2**40)
lies = st.sampled_from([1e-3, 1.0, 30.0, 1e6, 1e30])


def rng(seed):
    return torch.Generator().manual_seed(seed)


@st.composite
def updates(draw, least=3, most=9):
    """Either small whole numbers, so that equal values and exact ties occur, or any numbers."""
    n, size = draw(st.integers(least, most)), draw(st.integers(1, 6))
    draws = rng(draw(seeds))
    rows = torch.randint(-3, 4, (n, size), generator=draws).float()
    if draw(st.booleans()):
        rows = rows + torch.randn(n, size, generator=draws)
    return rows, torch.randint(1, 5, (n,), generator=draws)


@st.composite
def attacked(draw, honest_of):
    """Honest updates near a common centre, and others that are arbitrary or all the same lie."""
    byzantine = draw(st.integers(1, 4))
    honest, size = honest_of(byzantine) + draw(st.integers(0, 4)), draw(st.integers(1, 6))
    draws = rng(draw(seeds))
    centre = 5 * torch.randn(size, generator=draws)
    good = centre + torch.randn(honest, size, generator=draws)
    bad = centre + draw(lies) * torch.randn(byzantine, size, generator=draws)
    if draw(st.booleans()):
        bad = bad[:1].expand(byzantine, size)
    order = torch.randperm(honest + byzantine, generator=draws)
    return good, torch.cat([good, bad])[order], byzantine


@every
@quick
@given(given=updates(), seed=seeds)
def test_the_order_of_the_updates_does_not_matter(name, given, seed):
    rows, weights = given
    order = torch.randperm(len(rows), generator=rng(seed))
    torch.testing.assert_close(
        aggregate(name, rows[order], weights[order]),
        aggregate(name, rows, weights),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize(
    "name", ["mean", "median", "trimmed_mean", "multi_krum", "geometric_median"]
)
@quick
@given(given=updates(least=5), seed=seeds)
def test_what_moves_all_updates_moves_the_aggregate(name, given, seed):
    rows, weights = given
    # Short binary fractions, so that sums and differences are exact and ties stay ties. The
    # clipped mean is missing since the origin is in its law.
    rows = (rows * 1024).round() / 1024
    shift = torch.randint(-64, 65, rows.shape[1:], generator=rng(seed)).float()
    byzantine = 0 if name == "mean" else 1
    weights = weights.clamp(max=1)
    torch.testing.assert_close(
        aggregate(name, rows + shift, weights, byzantine=byzantine),
        aggregate(name, rows, weights, byzantine=byzantine) + shift,
        rtol=1e-5,
        atol=2e-5,
    )


@every
@quick
@given(given=updates(), scale=st.sampled_from([2.0**-20, 0.5, -1.0, 2.0, -(2.0**20)]))
def test_what_stretches_or_mirrors_all_updates_does_so_with_the_aggregate(name, given, scale):
    rows, weights = given
    # Powers of two, so that nothing is rounded that was not before.
    torch.testing.assert_close(
        aggregate(name, scale * rows, weights) / scale,
        aggregate(name, rows, weights),
        rtol=1e-5,
        atol=1e-5,
    )


@every
@quick
@given(given=updates(least=4), seed=seeds, data=st.data())
def test_a_tree_over_shards_gives_the_same_bits_whoever_came_first(name, given, seed, data):
    rows, weights = given
    rule, size = AGGREGATORS[name](0), rows.shape[1]
    count = data.draw(st.integers(1, len(rows)))
    shards = {
        f"shard-{index}": rule.accumulate(rule.init(size), part, share)
        for index, (part, share) in enumerate(
            zip(rows.tensor_split(count), weights.tensor_split(count), strict=True)
        )
    }
    other = {name: shards[name] for name in data.draw(st.permutations(list(shards)))}
    found = rule.finalise(merge_tree(rule, shards))
    assert torch.equal(rule.finalise(merge_tree(rule, other)), found)
    torch.testing.assert_close(found, aggregate(name, rows, weights), rtol=1e-6, atol=1e-6)


@quick
@given(given=updates(least=5), data=st.data())
def test_slices_of_columns_may_be_reduced_apart(given, data):
    rows, weights = given
    whole = Updates.of(rows.shape[1], rows, weights)
    cut = data.draw(st.integers(0, rows.shape[1]))
    parts = [whole.columns(0, cut), whole.columns(cut, rows.shape[1])]
    for rule in (coordinate_median, partial(coordinate_trimmed_mean, byzantine=1)):
        assert torch.equal(torch.cat([rule(part) for part in parts]), rule(whole))
    torch.testing.assert_close(
        gram_matrix(parts[0]) + gram_matrix(parts[1]), gram_matrix(whole), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("name", ["clipped_mean", "median", "trimmed_mean", "geometric_median"])
@quick
@given(byzantine=st.integers(1, 4), seed=seeds)
def test_the_breakdown_point_is_a_half(name, byzantine, seed):
    """f Byzantine of 2 f + 1 can't carry it away; f of 2 f are refused, since they could."""
    good = torch.randn(byzantine + 1, 5, generator=rng(seed))
    byzantine_rows = torch.full((byzantine, 5), 1e12)
    rows = torch.cat([byzantine_rows, good])
    found = aggregate(name, rows, torch.ones(len(rows)), byzantine=byzantine)
    assert float(found.norm()) <= 1e3
    with pytest.raises(AdmissionError):
        aggregate(name, rows[:-1], torch.ones(len(rows) - 1), byzantine=byzantine)


@every
@quick
@given(given=updates(), data=st.data())
def test_shards_may_be_reduced_apart_and_merged_in_any_tree(name, given, data):
    rows, weights = given
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), min_size=2, max_size=2)))
    rule = AGGREGATORS[name](0)
    size = rows.shape[1]
    empty = rule.init(size)
    a, b, c = (
        rule.accumulate(rule.init(size), part, share)
        for part, share in zip(rows.tensor_split(cuts), weights.tensor_split(cuts), strict=True)
    )
    whole = aggregate(name, rows, weights)
    one_by_one = rule.init(size)
    for row, weight in zip(rows, weights, strict=True):
        one_by_one = rule.accumulate(one_by_one, row[None], weight[None])
    for state in (
        rule.merge(rule.merge(a, b), c),
        rule.merge(a, rule.merge(b, c)),
        rule.merge(empty, rule.merge(rule.merge(a, b), rule.merge(c, empty))),
        one_by_one,
    ):
        torch.testing.assert_close(rule.finalise(state), whole, rtol=1e-6, atol=1e-6)


@every
@quick
@given(given=updates(), seed=seeds)
def test_only_the_ratio_of_weights_matters_and_equal_updates_stay_as_they_are(name, given, seed):
    rows, weights = given
    torch.testing.assert_close(
        aggregate(name, rows, weights * 0.3), aggregate(name, rows, weights), rtol=1e-5, atol=1e-5
    )
    same = torch.randn(rows.shape[1], generator=rng(seed)).expand_as(rows)
    torch.testing.assert_close(aggregate(name, same, weights), same[0])


@pytest.mark.parametrize("name", ["mean", "clipped_mean", "median", "geometric_median"])
@quick
@given(given=updates())
def test_a_whole_weight_counts_as_that_many_equal_updates(name, given):
    rows, weights = given
    repeated = rows.repeat_interleave(weights, dim=0)
    torch.testing.assert_close(
        aggregate(name, rows, weights),
        aggregate(name, repeated, torch.ones(len(repeated))),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize("name", ["median", "trimmed_mean"])
@quick
@given(given=attacked(lambda f: f + 1))
def test_coordinate_rules_stay_between_honest_values(name, given):
    good, rows, byzantine = given
    found = aggregate(name, rows, torch.ones(len(rows)), byzantine=byzantine)
    margin = 1e-5
    assert (found >= good.min(dim=0).values - margin).all()
    assert (found <= good.max(dim=0).values + margin).all()


@quick
@given(given=attacked(lambda f: f + 3))
def test_multi_krum_stays_near_honest_updates(given):
    good, rows, byzantine = given
    found = aggregate("multi_krum", rows, torch.ones(len(rows)), byzantine=byzantine)
    n, f = len(rows), byzantine
    diameter = float(torch.cdist(good, good).max())
    # An honest score is at most (n - f - 2) diameter²; whoever is chosen has no larger one and
    # at least n - 2 f - 2 honest updates among the neighbours it is summed over.
    reach = diameter * sqrt((n - f - 2) / (n - 2 * f - 2))
    assert float((good - found).norm(dim=1).min()) <= reach + diameter + 1e-4


@quick
@given(byzantine=st.integers(1, 4), more=st.integers(3, 6), far=st.floats(1e3, 1e15), seed=seeds)
def test_multi_krum_drops_colluding_updates_far_from_all_others(byzantine, more, far, seed):
    good = torch.randn(byzantine + more, 4, generator=rng(seed))
    rows = torch.cat([torch.full((byzantine, 4), far), good])
    found = aggregate("multi_krum", rows, torch.ones(len(rows)), byzantine=byzantine)
    assert (found >= good.min(dim=0).values - 1e-5).all()
    assert (found <= good.max(dim=0).values + 1e-5).all()


@quick
@given(given=attacked(lambda f: f + 1))
def test_the_geometric_median_keeps_its_bound_from_the_honest_ball(given):
    good, rows, byzantine = given
    found = aggregate("geometric_median", rows, torch.ones(len(rows)), byzantine=byzantine)
    centre = good.mean(dim=0)
    radius = float((good - centre).norm(dim=1).max())
    share = byzantine / len(rows)
    bound = radius * (1 - share) / sqrt(1 - 2 * share)
    assert float((found - centre).norm()) <= bound * (1 + 1e-4) + 1e-4


@quick
@given(given=attacked(lambda f: f + 1))
def test_a_clipped_mean_moves_by_the_byzantine_share_and_no_more(given):
    good, rows, byzantine = given
    longest = float(good.norm(dim=1).max())
    found = aggregate("clipped_mean", rows, torch.ones(len(rows)), byzantine=byzantine)
    assert float(found.norm()) <= longest * (1 + 1e-5)
    fixed = clipped_mean(longest)
    ones = torch.ones(len(rows))
    with_lies = fixed.finalise(fixed.accumulate(fixed.init(rows.shape[1]), rows, ones))
    moved = float((with_lies - good.mean(dim=0)).norm())
    assert moved <= 2 * longest * byzantine / len(rows) * (1 + 1e-4) + 1e-5
