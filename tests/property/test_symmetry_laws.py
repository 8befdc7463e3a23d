"""Relabelling a task relabels its probe, and every fitted part of the generator goes along."""

from __future__ import annotations

from functools import partial
from itertools import permutations
from math import factorial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.probe import anchor, probe_update
from f2l_fed.prior.linear_prior import fit_prior
from f2l_fed.prior.ridge import fit_ridge
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.targets import Target, build_target
from tests.support.small import examples, records, rng, single, small_generator, small_target

quick = settings(deadline=None, max_examples=15)
orders = st.permutations(range(3)).map(torch.tensor)
seeds = st.integers(0, 10_000)
RECIPE = Recipe(steps=10, lr=0.05, momentum=0.9)


def permuted(symmetry, weights, order):
    return symmetry.join(symmetry.split(weights).permuted(order))


def relabelled(y, order):
    """Output k of the permuted network is output ``order[k]`` of the first."""
    return order.argsort()[y]


@quick
@given(features=st.integers(1, 5), classes=st.integers(2, 5), hidden=st.integers(1, 6), seed=seeds)
def test_splitting_keeps_norms_and_joining_undoes_it(features, classes, hidden, seed):
    target = small_target(features, classes, hidden)
    for enabled in (True, False):
        symmetry = OutputSymmetry.of(target, enabled=enabled)
        weights = torch.randn(4, target.layout.size, generator=rng(seed))
        parts = symmetry.split(weights)
        torch.testing.assert_close(symmetry.join(parts), weights)
        norms = parts.common.square().sum(1) + parts.rows.square().sum((1, 2))
        torch.testing.assert_close(norms, weights.square().sum(1))
        assert parts.rows.shape[1] == (classes if enabled else 0)
        assert parts.rows.sum(1).abs().max() < 1e-5 if enabled else not parts.rows.numel()


@quick
@given(order=orders, seed=seeds)
def test_permuting_the_output_rows_permutes_the_logits(order, seed):
    target = small_target()
    symmetry = OutputSymmetry.of(target, enabled=True)
    weights = torch.randn(1, target.layout.size, generator=rng(seed))
    x, _ = examples(target, 9, seed)
    torch.testing.assert_close(
        target.logits(permuted(symmetry, weights, order)[0], x),
        target.logits(weights[0], x)[:, order],
        rtol=0,
        atol=1e-5,
    )


def probes_of_a_task_and_its_relabelling(target, start, order, seed):
    symmetry = OutputSymmetry.of(target, enabled=True)
    x, y = examples(target, 15, seed)
    probe = probe_update(target, start, x, y, RECIPE)
    return (
        probe_update(target, start, x, relabelled(y, order), RECIPE),
        permuted(symmetry, probe[None], order)[0],
    )


@quick
@given(order=orders, seed=seeds)
def test_permuting_the_labels_permutes_the_probe(order, seed):
    target = small_target()
    found, expected = probes_of_a_task_and_its_relabelling(
        target, anchor(target, f"lineage {seed}"), order, seed
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_permuting_the_labels_permutes_the_probe_of_a_convolutional_network():
    target = build_target("cnn-xs", (1, 12, 12), 5)
    order = torch.tensor([2, 0, 4, 3, 1])
    found, expected = probes_of_a_task_and_its_relabelling(target, anchor(target, "a"), order, 0)
    assert found.norm() > 0.01
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_from_a_random_output_layer_the_symmetry_does_not_hold():
    target = small_target()
    found, expected = probes_of_a_task_and_its_relabelling(
        target, target.initialise(rng()), torch.tensor([1, 2, 0]), 0
    )
    assert (found - expected).norm() > 0.05 * expected.norm()


def test_a_network_without_an_output_bias_has_the_symmetry_too():
    layers = partial(nn.Linear, 4, 5), nn.ReLU, partial(nn.Linear, 5, 3, bias=False)
    target = Target.of("bare", lambda: nn.Sequential(*(make() for make in layers)), (4,), 3)
    symmetry = OutputSymmetry.of(target, enabled=True)
    weights, order = torch.randn(1, symmetry.size, generator=rng()), torch.tensor([1, 2, 0])
    x, _ = examples(target, 9)
    assert symmetry.output.shape == (3, 5)
    torch.testing.assert_close(
        target.logits(permuted(symmetry, weights, order)[0], x),
        target.logits(weights[0], x)[:, order],
    )


@pytest.mark.parametrize("count", [6, 60])
def test_the_prior_is_the_ridge_regression_on_all_permuted_copies(count):
    """The claim of `f2l_fed.symmetry.output_permutation`, with the prior's own strengths."""
    symmetry = OutputSymmetry.of(small_target(features=2, hidden=2), enabled=True)
    contexts, weights = records(symmetry.size, count)
    # The prior adds to the probe itself, so that is what the regression has to explain.
    missing = weights - contexts
    x, y = symmetry.split(contexts), symmetry.split(missing)
    common = fit_ridge(x.common, y.common, standard_errors=1).strength
    rows = fit_ridge(
        x.rows.flatten(0, 1), y.rows.flatten(0, 1), group=3, centre=False, standard_errors=0
    ).strength

    copies = [torch.tensor(order) for order in permutations(range(3))]
    X = torch.cat([permuted(symmetry, contexts, order) for order in copies]).double()
    Y = torch.cat([permuted(symmetry, missing, order) for order in copies]).double()
    x_mean, y_mean = X.mean(0), Y.mean(0)
    Xc, Yc = X - x_mean, Y - y_mean
    # Every record counts K! times in the invariant block. Its K rows share the K - 1 dimensions
    # of the other one, where it counts K! / (K - 1) times.
    invariant = torch.stack([permuted(symmetry, torch.eye(symmetry.size), o) for o in copies])
    onto_common = invariant.mean(0).double()
    onto_rows = torch.eye(symmetry.size, dtype=torch.float64) - onto_common
    penalty = factorial(3) * (common * onto_common + rows / 2 * onto_rows)
    slope = torch.linalg.solve(Xc.T @ Xc + penalty, Xc.T @ Yc)

    fresh, _ = records(symmetry.size, 5, seed=9)
    expected = fresh + (fresh.double() - x_mean) @ slope + y_mean
    fit = fit_prior(*single(contexts, weights), symmetry, torch.zeros(symmetry.size))
    found = fit.prior(fresh)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4)


@quick
@given(order=orders, seed=seeds)
def test_expectation_and_codec_commute_with_permutations(order, seed):
    generator = small_generator()
    symmetry, codec = generator.codec.symmetry, generator.codec
    x = torch.randn(4, symmetry.size, generator=rng(seed))
    relabelled_x = permuted(symmetry, x, order)
    torch.testing.assert_close(
        generator.expect(relabelled_x),
        permuted(symmetry, generator.expect(x), order),
        rtol=1e-4,
        atol=1e-4,
    )
    latents = codec.encode(x)
    moved = codec.shape.join(codec.shape.split(latents).permuted(order))
    torch.testing.assert_close(codec.encode(relabelled_x), moved, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        codec.decode(moved), permuted(symmetry, codec.decode(latents), order), rtol=1e-4, atol=1e-4
    )


@quick
@given(order=orders, seed=seeds)
def test_the_fields_velocity_commutes_with_permutations(order, seed):
    field, draws = small_generator().velocity, rng(seed)
    shape = field.shape
    t, known = torch.rand(6, generator=draws), (torch.rand(6, generator=draws) > 0.5).float()
    x, context = torch.randn(2, 6, shape.size, generator=draws)

    def moved(latents):
        return shape.join(shape.split(latents).permuted(order))

    torch.testing.assert_close(
        field(t, moved(x), moved(context), known),
        moved(field(t, x, context, known)),
        rtol=1e-4,
        atol=1e-4,
    )
