"""Families of networks: as many as predict unseen networks better than one."""

from __future__ import annotations

import pytest
import torch

from f2l_fed.audit.diagnostics import explained
from f2l_fed.prior import families
from f2l_fed.prior.families import find_families
from f2l_fed.prior.linear_prior import fit_prior
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from tests.support.fleets import mixed_records
from tests.support.small import rng, small_target

TARGET = small_target()
SIZE = TARGET.layout.size
SYMMETRY = OutputSymmetry.of(TARGET, enabled=True)


def found_in(contexts, weights, most=8):
    anchor = torch.zeros(SIZE)
    one = fit_prior(contexts, weights, SYMMETRY, anchor)
    return find_families(contexts, weights, SYMMETRY, anchor, one, most=most)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("families", [2, 3])
def test_families_are_found_as_they_are(families, told):
    contexts, weights, labels = mixed_records(families, 30, told=told)
    found = found_in(contexts, weights)
    assert found is not None
    assert len(found.priors) == families
    pairs = set(zip(labels.tolist(), found.labels.tolist(), strict=True))
    assert len(pairs) == families


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sites", [16, 40, 80])
def test_one_family_stays_one(sites, seed):
    contexts, weights, _ = mixed_records(1, sites, seed=seed)
    assert found_in(contexts, weights) is None


@pytest.mark.parametrize("scale", [0.1, 1.0])
@pytest.mark.parametrize("families", [2, 3, 4])
def test_contexts_that_say_nothing_of_a_network_give_one_family(families, scale):
    draws, count = rng(7), 60
    labels = torch.arange(count) % families
    basins = 3 * torch.randn(families, SIZE, generator=draws)
    weights = basins[labels][:, None] + 0.3 * torch.randn(count, 2, SIZE, generator=draws)
    contexts = scale * torch.randn(weights.shape, generator=draws)
    assert found_in(contexts, weights) is None


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("families", [2, 4])
def test_held_out_predictions_are_as_good_as_those_of_new_sites(families, told):
    contexts, weights, _ = mixed_records(families, 60, told=told)
    known = 30 * families
    found = found_in(contexts[:known], weights[:known])
    assert found is not None
    new = contexts[known:].flatten(0, 1)
    made = torch.stack([fit.prior(new) for fit in found.priors])
    made = made[found.shares(new).argmax(1), torch.arange(len(new))].view_as(weights[known:])
    of_new = explained(weights[known:].flatten(0, 1), made.flatten(0, 1))
    figure = explained(weights[:known].flatten(0, 1), found.held_out.flatten(0, 1))
    assert figure == pytest.approx(of_new, abs=0.03 if told else 0.3)
    assert figure > 0.8 if told else figure < 0


def test_more_than_the_most_are_not_looked_for():
    contexts, weights, _ = mixed_records(3, 30)
    assert found_in(contexts, weights, most=1) is None
    two = found_in(contexts, weights, most=2)
    assert two is not None
    assert len(two.priors) == 2


def test_families_too_small_for_a_prior_are_none():
    contexts, weights, _ = mixed_records(2, 7)
    assert found_in(contexts, weights) is None


def test_the_largest_family_is_the_first():
    contexts, weights, labels = mixed_records(2, 30)
    kept = (labels == 1) | (torch.arange(60) < 30)
    found = found_in(contexts[kept], weights[kept])
    assert found is not None
    assert torch.equal(found.labels, 1 - labels[kept])


def test_shares_follow_a_context_that_tells_the_family_and_no_other():
    contexts, weights, _ = mixed_records(2, 40)
    found = found_in(contexts, weights)
    assert found is not None
    shares = found.shares(contexts.flatten(0, 1))
    own = shares[torch.arange(160), found.labels.repeat_interleave(2)]
    assert float(own.mean()) > 0.9
    torch.testing.assert_close(shares.sum(1), torch.ones(160))
    contexts, weights, _ = mixed_records(2, 40, told=False)
    found = found_in(contexts, weights)
    assert found is not None
    assert float((found.shares(contexts.flatten(0, 1)) - 0.5).abs().max()) < 0.35


def test_each_prior_is_that_of_its_own_sites():
    contexts, weights, _ = mixed_records(2, 30)
    found = found_in(contexts, weights)
    assert found is not None
    for family, prior in enumerate(found.priors):
        rows = found.labels == family
        alone = fit_prior(contexts[rows], weights[rows], SYMMETRY, torch.zeros(SIZE))
        assert torch.equal(prior.held_out, alone.held_out)


def test_families_of_many_sites_are_found_in_a_sample(monkeypatch):
    contexts, weights, labels = mixed_records(3, 30, told=True)
    monkeypatch.setattr(families, "_MOST_SITES", 60)
    found = found_in(contexts, weights)
    assert found is not None
    assert len(set(zip(labels.tolist(), found.labels.tolist(), strict=True))) == 3
    assert found.held_out.shape == weights.shape
    lost = (weights - found.held_out).square().sum() / (weights - weights.mean(0)).square().sum()
    assert lost < 0.5
