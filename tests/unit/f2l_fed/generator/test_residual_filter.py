"""The filter of heads before a fit."""

from __future__ import annotations

import pytest
import torch

from f2l_fed.errors import UsageError
from f2l_fed.generator.residual_filter import LONG, UNEXPECTED, filter_sites, left_out_sites
from f2l_fed.local_training.logistic_head import flat, rows
from f2l_fed.prior.linear_prior import fit_prior
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.targets import build_target
from f2l_fed.targets.body import Body
from f2l_fed.targets.head_rows import padded
from tests.support.small import rng

HEAD = Body.of(build_target("mlp", (1, 4, 4), 3)).head
SYMMETRY = OutputSymmetry.of(HEAD, enabled=True)
SIZE = HEAD.layout.size


def heads(sites=20, pairs=4, noise=0.2, seed=0):
    """Heads on few and on all examples of alike sites: all is twice few, but for some noise."""
    draws = rng(seed)
    few = torch.randn(sites, pairs, SIZE, generator=draws)
    return few, 2 * few + noise * torch.randn(few.shape, generator=draws)


def test_alike_sites_are_all_kept():
    assert [left_out_sites(*heads(seed=seed), SYMMETRY) for seed in range(5)] == [{}] * 5


@pytest.mark.parametrize("count", [1, 6])
def test_long_heads_are_left_out_few_or_all(count):
    few, all = heads()
    odd = dict.fromkeys(range(count), LONG)
    stretched = all.clone()
    stretched[:count] *= -5
    assert left_out_sites(few, stretched, SYMMETRY) == odd
    stretched = few.clone()
    stretched[:count] *= 5
    assert left_out_sites(stretched, all, SYMMETRY) == odd


@pytest.mark.parametrize("count", [1, 6])
@pytest.mark.parametrize("lie", ["flipped", "permuted", "random"])
def test_heads_of_the_right_length_that_nobody_expects_are_left_out(count, lie):
    few, all = heads()
    mine = all[:count].clone()
    if lie == "flipped":
        mine = -mine
    elif lie == "permuted":
        mine = torch.stack(
            [torch.stack([flat(rows(h, 3).roll(1, 0)) for h in site]) for site in mine]
        )
    else:
        drawn = torch.randn(mine.shape, generator=rng(9))
        mine = drawn * mine.norm() / drawn.norm()
    all[:count] = mine
    assert left_out_sites(few, all, SYMMETRY) == dict.fromkeys(range(count), UNEXPECTED)


def test_one_long_head_among_others_counts_by_the_mean():
    few, all = heads(noise=2.0)
    all[3, 0] *= 1.3
    assert left_out_sites(few, all, SYMMETRY) == {}
    all[3, 0] *= 100
    assert left_out_sites(few, all, SYMMETRY) == {3: LONG}


def test_the_order_of_the_sites_is_no_matter():
    few, all = heads()
    all[:3] *= -1
    order = torch.randperm(len(all), generator=rng(2))
    found = left_out_sites(few[order], all[order], SYMMETRY)
    assert {int(order[row]) for row in found} == {0, 1, 2}


def test_of_three_sites_nobody_is_the_odd_one():
    few, all = heads(sites=3)
    all[0] *= 100
    assert left_out_sites(few, all, SYMMETRY) == {}


def test_heads_that_are_not_finite_are_no_heads():
    few, all = heads()
    all[0, 0, 0] = torch.nan
    with pytest.raises(UsageError, match="not"):
        left_out_sites(few, all, SYMMETRY)


def test_heads_of_zeros_alone_are_alike():
    nothing = torch.zeros(6, 2, SIZE)
    assert left_out_sites(nothing, nothing, SYMMETRY) == {}


@pytest.mark.parametrize("count", [0, 1])
def test_its_last_fit_is_that_on_the_sites_it_keeps(count):
    few, all = heads()
    all[:count] *= -1
    found = filter_sites(few, all, SYMMETRY)
    assert list(found.left_out) == list(range(count))
    fit = fit_prior(few[count:], all[count:], SYMMETRY, torch.zeros(SIZE))
    assert found.fit is not None
    assert torch.equal(found.fit.held_out, fit.held_out)
    assert torch.equal(found.fit.prior(few[0]), fit.prior(few[0]))


def test_a_filter_that_does_not_settle_has_no_fit():
    assert filter_sites(*heads(sites=3), SYMMETRY).fit is None


WIDE = Body.of(build_target("mlp", (1, 4, 4), 12)).head


def of_classes(counts, pairs=4, noise=0.2):
    """`heads` of sites with these numbers of classes, whose rows sum to zero, padded."""
    few, whole, draws = [], [], rng(1)
    for classes in counts:
        own = torch.randn(pairs, classes, SIZE // 3, generator=draws)
        rest = noise * torch.randn(own.shape, generator=draws)
        few.append(torch.stack([flat(one) for one in own - own.mean(1, keepdim=True)]))
        more = 2 * own + rest
        whole.append(torch.stack([flat(one) for one in more - more.mean(1, keepdim=True)]))
    return tuple(torch.stack([padded(one, WIDE.layout) for one in side]) for side in (few, whole))


@pytest.mark.parametrize("counts", [[3] * 15 + [12], [12] * 15 + [2], [3, 5, 12] * 5])
def test_a_site_with_more_or_fewer_classes_than_most_is_no_odd_one(counts):
    few, all = of_classes(counts)
    symmetry = OutputSymmetry.of(WIDE, enabled=True)
    assert left_out_sites(few, all, symmetry) == {}
    all[-1] *= -5
    assert left_out_sites(few, all, symmetry) == {len(counts) - 1: LONG}
    all[-1] /= 5
    assert left_out_sites(few, all, symmetry) == {len(counts) - 1: UNEXPECTED}
