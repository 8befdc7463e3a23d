"""The prior around a shared network: a map where it helps, the network itself where it does not."""

from __future__ import annotations

import torch

from f2l_fed.prior.shared_prior import fit_around
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from tests.support.small import rng, small_target

SYMMETRY = OutputSymmetry.of(small_target(), enabled=False)
SIZE = SYMMETRY.size
AROUND, ANCHOR = torch.full((SIZE,), 3.0), torch.full((SIZE,), -1.0)


def contexts(sites=30, episodes=2, seed=0):
    draws = rng(seed)
    own = torch.randn(sites, 1, SIZE, generator=draws)
    return own + 0.1 * torch.randn(sites, episodes, SIZE, generator=draws)


def test_where_contexts_tell_nothing_the_shared_network_is_expected():
    known = contexts()
    weights = AROUND + torch.randn(30, 1, SIZE, generator=rng(9)).expand(-1, 2, -1)
    fit = fit_around(known, weights, SYMMETRY, ANCHOR, AROUND)
    assert torch.equal(fit.prior(known.flatten(0, 1)), AROUND.expand(60, -1))
    assert torch.equal(fit.held_out, AROUND.expand(30, 2, -1))


def test_where_contexts_tell_of_networks_the_map_is_taken_without_an_intercept():
    low = torch.randn(3, SIZE, generator=rng(7))
    code = torch.randn(30, 1, 3, generator=rng(8)).expand(-1, 2, -1)
    known = code @ low + 0.01 * contexts()
    turn = torch.randn(3, SIZE, generator=rng(9))
    # All sites lie off the shared network by one: that is no site's own.
    weights = AROUND + 1 + code @ turn
    fit = fit_around(known, weights, SYMMETRY, ANCHOR, AROUND)
    wanted = code @ turn
    error = (fit.held_out - AROUND - wanted).square().sum() / wanted.square().sum()
    assert float(error) < 0.1
    mean = known.flatten(0, 1).mean(0)
    torch.testing.assert_close(fit.prior(mean[None])[0], AROUND)
