"""A prediction of the prior is exactly the sum of what every site adds to it."""

from __future__ import annotations

import pytest
import torch

from f2l_fed.errors import UsageError
from f2l_fed.explain.attribution import attribution_of, held_out_attribution, refinement_step_of
from f2l_fed.prior.config import PriorConfig
from f2l_fed.prior.linear_prior import Expectation
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from tests.support.classes import drawn_heads
from tests.support.small import records, rng, small_target

EPISODES = 2
CONFIG = PriorConfig(rate=1.5)
both = pytest.mark.parametrize("symmetric", [True, False])


def symmetry_of(symmetric):
    return OutputSymmetry.of(small_target(), enabled=symmetric)


def names(count):
    return tuple(f"site-{index:03}" for index in range(count))


def by_site(rows):
    return rows.unflatten(0, (-1, EPISODES))


def chain(symmetry, sites=10):
    """A prior that was fitted once and refined twice, the last time with a site more."""
    contexts, weights = (by_site(rows) for rows in records(symmetry.size, sites * EPISODES))
    anchor = torch.randn(symmetry.size, generator=rng(8))
    known = sites - 1
    steps = [
        refinement_step_of(
            names(known), contexts[:known], weights[:known], symmetry, CONFIG, anchor=anchor
        )
    ]
    for count in (known, sites):
        fit = steps[-1].fit
        expected = fit.prior(contexts.flatten(0, 1)).view_as(contexts)
        expected[:known] = fit.held_out[:known]
        sent = expected + 0.1 * torch.randn(contexts.shape, generator=rng(len(steps)))
        steps.append(
            refinement_step_of(
                names(count),
                contexts[:count],
                sent[:count],
                symmetry,
                CONFIG,
                anchor=anchor,
                before=Expectation(prior=fit.prior, expected=expected[:count]),
            )
        )
    return steps


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)


@both
@pytest.mark.parametrize("length", [1, 3])
def test_a_new_sites_prediction_is_the_sum_of_its_origin(symmetric, length):
    symmetry = symmetry_of(symmetric)
    steps = chain(symmetry)[:length]
    context = torch.randn(symmetry.size, generator=rng(5))
    origin = attribution_of(steps, context)
    close(origin.network(), steps[-1].fit.prior(context[None])[0])
    assert set(origin.learned) == {site for step in steps for site in step.sites}


@both
@pytest.mark.parametrize("length", [1, 3])
def test_a_known_sites_prediction_without_its_records_owes_it_nothing(symmetric, length):
    symmetry = symmetry_of(symmetric)
    steps = chain(symmetry)[:length]
    for row, site in ((0, "site-000"), (4, "site-004")):
        for episode in range(EPISODES):
            origin = held_out_attribution(steps, site, episode)
            close(origin.network(), steps[-1].fit.held_out[row, episode])
            assert not origin.learned[site].any()


@both
def test_a_site_that_came_late_was_answered_like_a_new_one_before(symmetric):
    steps = chain(symmetry_of(symmetric))
    late = steps[-1].sites[-1]
    assert late not in steps[0].sites
    origin = held_out_attribution(steps, late)
    close(origin.network(), steps[-1].fit.held_out[-1, 0])


def test_a_site_that_sent_nothing_new_adds_nothing():
    symmetry = symmetry_of(False)
    contexts, weights = (by_site(rows) for rows in records(symmetry.size, 8 * EPISODES))
    anchor = torch.zeros(symmetry.size)
    weights[3] = anchor + contexts[3]
    step = refinement_step_of(names(8), contexts, weights, symmetry, CONFIG, anchor=anchor)
    learned = attribution_of([step], contexts[0, 0]).learned
    assert not learned["site-003"].any()
    assert all(vector.any() for site, vector in learned.items() if site != "site-003")


def test_heads_behind_a_gate_are_the_sum_of_their_origin_too():
    drawn = drawn_heads(sites=10, pairs=EPISODES)
    contexts, weights = drawn.flat
    anchor = torch.zeros(drawn.symmetry.size)
    step = refinement_step_of(names(10), contexts, weights, drawn.symmetry, CONFIG, anchor=anchor)
    assert len(step.fit.prior.gate.centroids)
    stranger = drawn_heads(sites=1, seed=5).flat[0][0, 0]
    close(attribution_of([step], stranger).network(), step.fit.prior(stranger[None])[0])
    for episode in range(EPISODES):
        origin = held_out_attribution([step], "site-004", episode)
        close(origin.network(), step.fit.held_out[4, episode])


def test_a_site_without_records_is_refused():
    with pytest.raises(UsageError, match="no records of this site"):
        held_out_attribution(chain(symmetry_of(True)), "site-077")
