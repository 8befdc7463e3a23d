"""Laws of the flow: orders of solvers, normal transport, symmetry, freshness, honest couplings."""

from __future__ import annotations

from math import exp

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from f2l_fed.codec import fit_pca
from f2l_fed.flow import (
    COUPLINGS,
    SOLVERS,
    SOURCES,
    Denoiser,
    DiagonalNormal,
    FlowConfig,
    Initialisations,
    VelocityField,
    draw,
    fit_flow,
    guided,
    solve,
)
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from tests.support.latents import PLAIN, SHAPE, bimodal, box
from tests.support.small import records, rng, small_target, stirred

quick = settings(deadline=None, max_examples=10)
slow = settings(deadline=None, max_examples=4)
seeds = st.integers(0, 10_000)
orders = st.permutations(range(SHAPE.classes)).map(torch.tensor)


def field_for(source, spread, width=8):
    return VelocityField(SHAPE, spread, source, width=width, depth=1, initial=box(SHAPE).normal)


def spread_for(seed):
    """Equal for all outputs, as their exchangeability demands."""
    common, row = (0.2 + 2 * torch.rand(2, generator=rng(seed)) for _ in range(2))
    return torch.cat([common, row.repeat(SHAPE.classes)])


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2)])
def test_the_error_of_a_solver_falls_with_the_power_of_its_order(solver, order):
    cost, steps = SOLVERS[solver].evaluations, np.array([16, 32, 64, 128, 256])
    x = torch.ones(1, 1, dtype=torch.float64)
    errors = [
        abs(
            float(
                solve(
                    lambda t, x: x * (1 + t[:, None]),
                    x,
                    solver=solver,
                    evaluations=cost * int(count),
                )
            )
            - exp(1.5)
        )
        for count in steps
    ]
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(-order, abs=0.1)


@slow
@given(seed=seeds, source=st.sampled_from(sorted(SOURCES)), solver=st.sampled_from(sorted(SOLVERS)))
def test_normal_sources_are_carried_to_normal_targets_with_their_mean_and_covariance(
    seed, source, solver
):
    spread, context = spread_for(seed), 2 * torch.randn(1, SHAPE.size, generator=rng(seed))
    normal = SOURCES[source].start(DiagonalNormal(context, spread), box(SHAPE).normal)
    # Starts whose mean and covariance are exactly those of the source.
    unit = torch.randn(64, SHAPE.size, generator=rng(seed + 1))
    unit = torch.linalg.qr(unit - unit.mean(0)).Q * 64**0.5
    start = normal.centre + normal.width * unit
    with torch.no_grad():
        velocity = guided(field_for(source, spread), context)
        end = solve(velocity, start, solver=solver, evaluations=400)
    torch.testing.assert_close(end.mean(0), context[0], rtol=0, atol=0.02)
    covariance = (end - context).T @ (end - context) / 64
    torch.testing.assert_close(covariance, torch.diag(spread**2), rtol=0.02, atol=0.02)


@quick
@given(seed=seeds)
def test_around_the_prior_one_midpoint_step_is_exact_and_one_euler_step_loses_all_variety(seed):
    spread, context = spread_for(seed), torch.randn(20, SHAPE.size, generator=rng(seed))
    velocity = guided(field_for("prior", spread), context)
    start = draw("prior", context, spread, SHAPE, rng(seed))
    with torch.no_grad():
        middle = solve(velocity, start, solver="midpoint", evaluations=2)
        flat = solve(velocity, start, solver="euler", evaluations=1)
    torch.testing.assert_close(middle, start, rtol=0, atol=1e-4)
    torch.testing.assert_close(flat, context, rtol=0, atol=1e-4)


@quick
@given(order=orders, seed=seeds, source=st.sampled_from(sorted(SOURCES)), known=st.floats(0, 1))
def test_flow_and_diffusion_commute_with_permutations_of_the_outputs(order, seed, source, known):
    draws, spread = rng(seed), spread_for(seed)
    t, flags = torch.rand(6, generator=draws), torch.full((6,), float(known > 0.5))
    x, context = torch.randn(2, 6, SHAPE.size, generator=draws)

    def moved(latents):
        return SHAPE.join(SHAPE.split(latents).permuted(order))

    for network in (field_for(source, spread), Denoiser(SHAPE, spread, width=8, depth=2)):
        network = stirred(network, seed)
        torch.testing.assert_close(
            network(t, moved(x), moved(context), flags),
            moved(network(t, x, context, flags)),
            rtol=1e-4,
            atol=1e-3,
        )


@quick
@given(seed=seeds, source=st.sampled_from(sorted(SOURCES)), guidance=st.floats(0, 3))
def test_a_network_for_given_contexts_is_the_network(seed, source, guidance):
    draws, field = rng(seed), stirred(field_for(source, spread_for(seed)))
    t, (x, context) = torch.rand(1, generator=draws), torch.randn(2, 6, 8, generator=draws)
    told, free = (field(t.expand(6), x, context, torch.full((6,), flag)) for flag in (1.0, 0.0))
    velocity = guided(field, context, guidance=guidance)(t, x)
    torch.testing.assert_close(velocity, free + guidance * (told - free), rtol=1e-4, atol=1e-3)


@slow
@given(
    seed=seeds,
    source=st.sampled_from(sorted(SOURCES)),
    coupling=st.sampled_from(sorted(COUPLINGS)),
)
def test_equal_seeds_give_equal_bits_from_the_fit_to_the_sample(seed, source, coupling):
    targets, expected, spread = bimodal(20)
    config = FlowConfig(source=source, coupling=coupling, width=8, depth=1, steps=4, batch=16)

    def made():
        draws, initial = rng(seed), box(PLAIN)
        fit = fit_flow(targets, expected, spread, PLAIN, config, draws, initial=initial)
        start = draw(source, expected, spread, PLAIN, draws, initial=initial)
        end = solve(guided(fit.field, expected), start, solver="heun", evaluations=4)
        return torch.cat([start, end])

    assert torch.equal(made(), made())


def test_initialisations_are_new_at_every_draw_of_a_fit_and_after_it():
    target, made = small_target(), []
    symmetry = OutputSymmetry.of(target, enabled=True)
    codec = fit_pca(records(symmetry.size)[1], symmetry, common=6, rows=2)

    def make(count, draws):
        weights = torch.stack([target.initialise(draws) for _ in range(count)])
        made.append(codec.encode(weights))
        return made[-1]

    draws, size = rng(1), codec.shape.size
    initial = Initialisations.measured(make, codec.shape, draws, count=30)
    expected, targets = torch.randn(2, 12, size, generator=rng(2))
    config = FlowConfig(source="kaiming", width=8, depth=1, steps=5, batch=8)
    fit_flow(targets, expected, torch.ones(size), codec.shape, config, draws, initial=initial)
    for _ in range(3):
        draw("kaiming", expected, torch.ones(size), codec.shape, draws, initial=initial)
    rows = torch.cat(made)
    # 30 to measure, 2 records kept aside 16 times, 5 steps of 8, 12 for the speed, 3 draws of 12.
    assert len(rows) == 30 + 32 + 40 + 12 + 36
    assert len(rows.unique(dim=0)) == len(rows)


def noise_of(coupling, context, targets, *, count=40):
    """Noise and context of the batches that a fit would see."""
    draws, seen = rng(3), []
    for _ in range(count):
        picks = torch.randint(len(context), (128,), generator=draws)
        noise = torch.randn(128, targets.shape[1], generator=draws)
        plan = COUPLINGS[coupling](
            noise, targets[picks], context[picks], torch.ones(128), batch=128
        )
        seen.append((noise[plan], context[picks]))
    noises, contexts = zip(*seen, strict=True)
    return torch.cat(noises), torch.cat(contexts)


def explained(noise, context):
    """Share of the noise's variance that a linear function of the context accounts for."""
    slope = torch.linalg.lstsq(context, noise).solution
    return float((context @ slope).square().sum() / noise.square().sum())


@slow
@given(seed=seeds, classes=st.integers(2, 4))
def test_given_a_shared_context_the_noise_stays_standard_normal_unless_it_is_ignored(seed, classes):
    label = torch.arange(160) % classes
    centres = torch.tensor([[-1.5, 0], [1.5, 0], [0, 1.5], [0, -1.5]])[:classes]
    targets = centres[label] + 0.3 * torch.randn(160, 2, generator=rng(seed))
    context = torch.eye(classes)[label]

    def farthest_mean(coupling):
        noise, contexts = noise_of(coupling, context, targets, count=30)
        return max(float(noise[contexts[:, k] > 0].mean(0).norm()) for k in range(classes))

    # Five standard errors of the mean of the smallest group.
    assert farthest_mean("conditional-ot") < 5 * (2 * classes / (30 * 128)) ** 0.5
    assert farthest_mean("ot") > 0.5


@slow
@given(seed=seeds, size=st.integers(1, 8))
def test_the_noise_says_nothing_of_a_context_that_no_two_sites_share_unless_it_is_ignored(
    seed, size
):
    context = torch.randn(170, size, generator=rng(seed))
    targets = context + 0.6 * torch.randn(170, size, generator=rng(seed + 1))
    assert explained(*noise_of("conditional-ot", context, targets)) < 0.02
    assert explained(*noise_of("ot", context, targets)) > 0.2


@quick
@given(seed=seeds, coupling=st.sampled_from(sorted(COUPLINGS)), count=st.integers(1, 40))
def test_a_coupling_is_a_permutation_that_never_costs_more_than_none(seed, coupling, count):
    starts, ends, context = torch.randn(3, count, 2, generator=rng(seed))
    known = (torch.rand(count, generator=rng(seed)) > 0.3).float()
    plan = COUPLINGS[coupling](starts, ends, context, known, batch=16)
    assert sorted(plan.tolist()) == list(range(count))
    cost = (starts[plan] - ends).square().sum()
    assert cost <= (starts - ends).square().sum() * (1 + 1e-5)
