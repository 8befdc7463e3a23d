"""The prior is the probe itself plus what many probes and networks add, and learns from updates."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from f2l_fed.errors import ConfigError
from f2l_fed.local_training.logistic_head import flat
from f2l_fed.prior.config import PriorConfig
from f2l_fed.prior.linear_prior import fit_prior, refine_prior
from f2l_fed.prior.ridge import fit_ridge
from f2l_fed.symmetry.output_permutation import IsotypicParts, OutputSymmetry
from f2l_fed.targets import build_target
from f2l_fed.targets.body import Body
from f2l_fed.targets.head_rows import class_counts, cut, padded
from tests.support.small import records, rng, small_target

both = pytest.mark.parametrize("symmetric", [True, False])


def symmetry_of(symmetric):
    return OutputSymmetry.of(small_target(), enabled=symmetric)


def anchor_of(symmetry):
    return torch.randn(symmetry.size, generator=rng(8))


def fitted(contexts, weights, symmetry):
    """A fit on one record for each site."""
    fit = fit_prior(contexts[:, None], weights[:, None], symmetry, anchor_of(symmetry))
    return replace(fit, held_out=fit.held_out[:, 0])


@both
def test_the_mean_probe_is_answered_with_the_mean_network(symmetric):
    symmetry = symmetry_of(symmetric)
    contexts, weights = records(symmetry.size)
    found = fitted(contexts, weights, symmetry).prior(contexts.mean(0, keepdim=True))
    torch.testing.assert_close(
        symmetry.split(found).common,
        symmetry.split(weights).common.mean(0, keepdim=True),
        rtol=0,
        atol=1e-5,
    )


def test_without_symmetry_it_is_ridge_regression_of_what_the_probe_itself_lacks():
    symmetry = symmetry_of(False)
    contexts, weights = records(symmetry.size)
    start = anchor_of(symmetry) + contexts
    plain = fit_ridge(contexts, weights - start, rank=256)
    fit = fitted(contexts, weights, symmetry)
    torch.testing.assert_close(fit.prior(contexts), start + plain.map(contexts))
    torch.testing.assert_close(fit.held_out, start + plain.held_out(weights - start))


def test_what_was_never_seen_is_left_to_the_probe():
    """Along directions that no context had, the prior goes exactly where the probe goes."""
    symmetry = symmetry_of(False)
    contexts, weights = records(symmetry.size, 10)
    prior = fitted(contexts, weights, symmetry).prior
    _, _, basis = torch.linalg.svd(contexts - contexts.mean(0))
    new = basis[-1]
    here, there = prior(contexts[:1]), prior(contexts[:1] + new)
    torch.testing.assert_close(there - here, new[None], rtol=0, atol=1e-4)


def test_held_out_rows_are_predicted_without_any_record_of_their_site():
    symmetry, sites, episodes = symmetry_of(True), 10, 3
    contexts, weights = records(symmetry.size, sites * episodes)
    shape = (sites, episodes, symmetry.size)
    anchor = anchor_of(symmetry)
    fit = fit_prior(contexts.view(shape), weights.view(shape), symmetry, anchor)
    found = symmetry.split((fit.held_out - anchor).flatten(0, 1) - contexts).rows
    x = symmetry.split(contexts).rows.double()
    y = symmetry.split(weights - anchor - contexts).rows.double()
    group = 3 * episodes
    strength = fit_ridge(
        x.flatten(0, 1), y.flatten(0, 1), group=group, centre=False, standard_errors=0
    ).strength
    site_of = torch.arange(sites).repeat_interleave(episodes)
    for site in range(sites):
        a, b = x[site_of != site].flatten(0, 1), y[site_of != site].flatten(0, 1)
        slope = torch.linalg.solve(a.T @ a + strength * torch.eye(a.shape[1]).double(), a.T @ b)
        own = site_of == site
        torch.testing.assert_close(found[own], (x[own] @ slope).float(), rtol=0, atol=1e-4)


@both
def test_a_record_does_not_speak_in_its_own_held_out_prediction(symmetric):
    symmetry = symmetry_of(symmetric)
    contexts, weights = records(symmetry.size)
    fit = fitted(contexts, weights, symmetry)
    assert (fit.held_out - weights).norm() > 1.05 * (fit.prior(contexts) - weights).norm()


def missed_over_spread(contexts, lacking, symmetry):
    """Held-out squared error of what probes lack, over that of its mean over all relabellings."""
    weights = anchor_of(symmetry) + contexts + lacking
    missed = fitted(contexts, weights, symmetry).held_out - weights
    parts = symmetry.split(lacking)
    spread = (parts.common - parts.common.mean(0)).square().sum() + parts.rows.square().sum()
    return float(missed.square().sum() / spread)


@both
def test_probes_that_say_more_than_themselves_lower_the_held_out_error(symmetric):
    symmetry = symmetry_of(symmetric)
    assert missed_over_spread(*records(symmetry.size, 200), symmetry) < 0.7


@both
def test_probes_that_say_no_more_than_themselves_cost_little(symmetric):
    symmetry = symmetry_of(symmetric)
    _, lacking = records(symmetry.size, 200)
    noise = torch.randn(lacking.shape, generator=rng(5))
    assert missed_over_spread(noise, lacking, symmetry) == pytest.approx(1, abs=0.05)


def test_one_output_row_speaks_for_the_others():
    """What holds for every row is found from fewer records where the symmetry may be used."""
    size, few = symmetry_of(True).size, 30
    contexts, weights = records(size, few)
    on, off = symmetry_of(True), symmetry_of(False)
    # The same map for every row, and nothing else: what the rows of a context say, doubled.
    rows = 2 * on.split(contexts).rows
    start = anchor_of(on) + contexts
    weights = start + on.join(IsotypicParts(on.split(weights).common, rows))
    found = [on.split(fitted(contexts, weights, sym).held_out - start).rows for sym in (on, off)]
    errors = [(one - rows).square().mean() for one in found]
    assert errors[0] < 0.1 * errors[1]


def refined(rate, rounds=1, symmetric=True):
    """A prior that is moved towards the networks of a map that it does not have yet."""
    symmetry = symmetry_of(symmetric)
    contexts, weights = records(symmetry.size, 200)
    fit = fit_prior(contexts[:, None], weights[:, None], symmetry, anchor_of(symmetry))
    goal = fit.prior(contexts) + contexts
    for _ in range(rounds):
        # Sites go a part of the way to where they would like to be.
        returned = fit.held_out + 0.3 * (goal[:, None] - fit.held_out)
        fit = refine_prior(
            fit.prior, contexts[:, None], fit.held_out, returned, PriorConfig(rate=rate)
        )
    return fit, contexts, goal


@both
def test_every_refinement_brings_the_prior_nearer_to_where_the_sites_go(symmetric):
    errors = [
        float((fit.prior(contexts) - goal).norm())
        for fit, contexts, goal in (refined(1.0, rounds, symmetric) for rounds in range(5))
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[4] < 0.5 * errors[0]


def test_a_higher_rate_goes_further_along_the_same_way():
    start, contexts, _ = refined(1.0, 0)
    once, twice = (refined(rate)[0].prior(contexts) - start.prior(contexts) for rate in (1.0, 2.0))
    torch.testing.assert_close(twice, 2 * once, rtol=1e-3, atol=1e-4)


def test_refining_does_not_let_the_maps_grow():
    fit, contexts, _ = refined(1.5, 6)
    for part in (fit.prior.common, fit.prior.rows):
        assert part.left.shape[1] <= min(part.left.shape[0], len(contexts) * 3)


def test_a_rate_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="rate"):
        PriorConfig(rate=0)


def test_rows_of_zeros_for_classes_that_no_site_has_change_nothing():
    few, many = (Body.of(build_target("mlp", (6,), classes)).head for classes in (3, 12))
    draws = rng(3)
    own = torch.randn(2, 20, 4, 3, few.layout.size // 3, generator=draws)
    own -= own.mean(3, keepdim=True)
    own[1] = 2 * own[1] + own[0].roll(1, 3)
    heads = torch.stack([flat(one) for one in own.flatten(0, 2)]).view(2, 20, 4, -1)
    wide = padded(heads.flatten(0, 2), many.layout).view(2, 20, 4, -1)
    fits = [
        fit_prior(*rows, OutputSymmetry.of(head, enabled=True), torch.zeros(rows.shape[-1]))
        for rows, head in ((heads, few), (wide, many))
    ]
    assert fits[0].rows.strength == pytest.approx(fits[1].rows.strength)
    new = heads[0, :, 0].roll(1, 0) + 0.3 * heads[0, :, 1]
    found = [fits[0].prior(new), fits[1].prior(padded(new, many.layout))]
    torch.testing.assert_close(cut(found[1], many.layout, 3), found[0], rtol=1e-4, atol=1e-4)
    held_out = [fits[0].held_out, cut(fits[1].held_out, many.layout, 3)]
    torch.testing.assert_close(held_out[1], held_out[0], rtol=1e-4, atol=1e-4)
    assert class_counts(found[1], many.layout).tolist() == [3] * 20


def test_one_map_serves_sites_with_different_numbers_of_classes():
    head = Body.of(build_target("mlp", (6,), 12)).head
    symmetry, draws = OutputSymmetry.of(head, enabled=True), rng(4)
    size = head.layout.size // 12
    mixing = torch.eye(size) + 0.3 * torch.randn(size, size, generator=draws)

    def pairs(classes):
        few = torch.randn(4, classes, size, generator=draws)
        few -= few.mean(1, keepdim=True)
        sides = (few, few @ mixing)
        return [padded(torch.stack([flat(one) for one in side]), head.layout) for side in sides]

    sites = [pairs(classes) for classes in [3, 5, 12] * 10]
    contexts, weights = (torch.stack(side) for side in zip(*sites, strict=True))
    prior = fit_prior(contexts, weights, symmetry, torch.zeros(head.layout.size)).prior
    for classes in (2, 3, 7, 12):
        few, whole = pairs(classes)
        assert float((prior(few) - whole).norm()) < 0.02 * float(whole.norm())
