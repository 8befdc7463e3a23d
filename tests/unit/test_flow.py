"""Solvers have their order, an untrained field is exact for normal targets, training beats it."""

from __future__ import annotations

from math import exp, log2

import pytest
import torch

from f2l_fed.codec import LatentShape
from f2l_fed.errors import ConfigError
from f2l_fed.flow import SOURCES, FlowConfig, VelocityField, draw, fit_flow, solve
from tests.support.small import rng, stirred

SHAPE = LatentShape(common=2, classes=3, width=2)
PLAIN = LatentShape(common=2, classes=0, width=0)


def integrate(field, start, context, evaluations=4, solver="midpoint"):
    known = torch.ones(len(context))
    with torch.no_grad():
        return solve(
            lambda t, x: field(t, x, context, known),
            start,
            solver=solver,
            evaluations=evaluations,
        )


@pytest.mark.parametrize(("solver", "cost", "order"), [("euler", 1, 1), ("midpoint", 2, 2)])
def test_halving_the_step_divides_the_error_by_two_to_the_order(solver, cost, order):
    x = torch.ones(1, 1, dtype=torch.float64)
    errors = [
        abs(
            float(
                solve(lambda t, x: x * (1 + t[:, None]), x, solver=solver, evaluations=cost * steps)
            )
            - exp(1.5)
        )
        for steps in (16, 32, 64)
    ]
    assert log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)
    assert log2(errors[1] / errors[2]) == pytest.approx(order, abs=0.05)


@pytest.mark.parametrize("solver", ["euler", "midpoint"])
def test_a_solver_evaluates_as_often_as_it_is_told_inside_the_unit_interval(solver):
    times = []

    def velocity(t, x):
        times.extend(t.tolist())
        return torch.ones_like(x)

    end = solve(velocity, torch.zeros(1, 3), solver=solver, evaluations=10)
    assert len(times) == 10
    assert min(times) == 0
    assert max(times) < 1
    torch.testing.assert_close(end, torch.ones(1, 3))


@pytest.mark.parametrize("shape", [SHAPE, PLAIN])
def test_sources_are_centred_where_they_say_and_as_wide(shape):
    expected = torch.linspace(-5, 5, shape.size).expand(20_000, -1)
    spread = torch.linspace(0.5, 2, shape.size)
    for source, centre, width in (
        ("prior", expected[0], spread),
        ("gaussian", torch.zeros(shape.size), torch.ones(shape.size)),
    ):
        start = draw(source, expected, spread, shape, rng(), temperature=1.5)
        torch.testing.assert_close(start.mean(0), centre, rtol=0, atol=0.1)
        torch.testing.assert_close(start.std(0), 1.5 * width, rtol=0.03, atol=0)


@pytest.mark.parametrize("source", SOURCES)
def test_an_untrained_field_carries_every_start_to_its_place_in_the_normal_target(source):
    draws = rng(2)
    spread = torch.tensor([0.3, 2.0, 0.7, 1.4, 0.7, 1.4, 0.7, 1.4])
    context = 3 * torch.randn(1_000, SHAPE.size, generator=draws)
    field = VelocityField(SHAPE, spread, source, width=8, depth=1)
    start = draw(source, context, spread, SHAPE, draws)
    end = integrate(field, start, context, evaluations=60)
    centre, width = SOURCES[source](context, spread)
    # Between normals the flow is affine: so many deviations from the centre stay so many.
    expected = context + spread * (start - centre) / width
    torch.testing.assert_close(end, expected, rtol=0, atol=0.01)
    # Five standard errors of 1,000 draws.
    errors = (end - context) / spread
    assert errors.mean(0).abs().max() < 5 / 1_000**0.5
    assert (errors.std(0) - 1).abs().max() < 5 / 2_000**0.5


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("shape", [SHAPE, PLAIN])
def test_any_field_commutes_with_permutations_of_the_outputs(source, shape):
    draws, order = rng(3), torch.randperm(shape.classes, generator=rng(4))
    rows = torch.tensor([0.5, 2.0]).repeat(shape.classes)
    spread = torch.cat([torch.tensor([0.4, 1.1]), rows])
    plain = VelocityField(shape, spread, source, width=8, depth=2)
    field = stirred(plain)
    t, known = torch.rand(7, generator=draws), torch.ones(7)
    x, context = torch.randn(2, 7, shape.size, generator=draws)

    def moved(latents):
        return shape.join(shape.split(latents).permuted(order))

    with torch.no_grad():
        velocity = field(t, x, context, known)
        torch.testing.assert_close(
            field(t, moved(x), moved(context), known), moved(velocity), rtol=1e-4, atol=1e-4
        )
        assert (velocity - plain(t, x, context, known)).abs().max() > 0.1


def test_a_withheld_context_moves_the_normal_path_but_says_nothing_to_the_network():
    plain = VelocityField(SHAPE, torch.ones(SHAPE.size), "gaussian", width=8, depth=1)
    field, offset = stirred(plain), torch.randn(1, SHAPE.size, generator=rng(1))
    t = torch.tensor([0.3])

    def learned(context, known):
        # The same state relative to the path, so that only the context differs.
        x = t[:, None] * context + offset
        flags = torch.full((1,), known)
        with torch.no_grad():
            return field(t, x, context, flags) - plain(t, x, context, flags)

    a, b = torch.randn(2, 1, SHAPE.size, generator=rng(2))
    torch.testing.assert_close(learned(a, 0.0), learned(b, 0.0), rtol=0, atol=1e-5)
    assert (learned(a, 1.0) - learned(b, 1.0)).abs().max() > 0.01


def sums_of_rows(latents):
    return SHAPE.split(latents).rows.sum(1)


def test_neither_source_nor_velocity_leaves_the_space_where_the_rows_sum_to_zero():
    ones, context = torch.ones(SHAPE.size), torch.zeros(4, SHAPE.size)
    start = draw("gaussian", context, ones, SHAPE, rng())
    field = stirred(VelocityField(SHAPE, ones, "gaussian", width=8, depth=1))
    velocity = field(torch.rand(4, generator=rng()), start, context, torch.ones(4))
    for latents in (start, velocity):
        assert SHAPE.split(latents).rows.abs().max() > 0.1
        torch.testing.assert_close(sums_of_rows(latents), torch.zeros(4, 2), rtol=0, atol=1e-5)


def bimodal(count=400, seed=0):
    """Targets two to the left or to the right of what is expected; and how wide that is."""
    draws = rng(seed)
    expected = torch.randn(count, 2, generator=draws)
    side = 4.0 * torch.randint(2, (count,), generator=draws) - 2
    offset = torch.stack([side, torch.zeros(count)], 1) + 0.1 * torch.randn(
        count, 2, generator=draws
    )
    return expected + offset, expected, offset.square().mean(0).sqrt()


@pytest.fixture(scope="module", params=list(SOURCES))
def fitted(request):
    config = FlowConfig(source=request.param, width=64, depth=1, steps=300, lr=5e-3, check_every=25)
    return fit_flow(*bimodal(), PLAIN, config, rng(1)), request.param


def test_training_finds_structure_that_normal_targets_do_not_have(fitted):
    fit, _ = fitted
    assert fit.loss < 0.85 * fit.normal_loss
    assert 0 < fit.step <= 300


def test_samples_reach_both_modes_and_little_lies_between(fitted):
    fit, source = fitted
    context = torch.randn(2_000, 2, generator=rng(7))
    spread = bimodal()[2]
    end = integrate(
        fit.field, draw(source, context, spread, PLAIN, rng(8)), context, evaluations=32
    )
    offset = (end - context)[:, 0]
    left, right = (offset + 2).abs() < 0.7, (offset - 2).abs() < 0.7
    assert left.float().mean() > 0.3
    assert right.float().mean() > 0.3
    # A normal of the same width has a quarter of its draws here.
    assert (offset.abs() < 0.7).float().mean() < 0.12


def few_steps(seed, **settings):
    config = FlowConfig(width=8, depth=1, steps=5, check_every=5, **settings)
    return fit_flow(*bimodal(40), PLAIN, config, rng(seed))


def test_equal_seeds_give_equal_bits_and_others_do_not():
    first = few_steps(1)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    second, other = few_steps(1), few_steps(2)
    assert torch.equal(torch.get_rng_state(), state)
    assert (first.loss, first.normal_loss, first.step) == (second.loss, second.normal_loss, 5)
    for name, value in first.field.state_dict().items():
        assert torch.equal(value, second.field.state_dict()[name])
    assert first.loss != other.loss


def test_the_best_weights_are_kept_even_if_they_are_the_first_ones():
    ruined = few_steps(1, lr=1e3)
    assert ruined.step == 0
    assert ruined.loss == ruined.normal_loss
    assert not ruined.field.common_out.weight.any()
    assert not any(parameter.requires_grad for parameter in ruined.field.parameters())


def test_a_fit_that_stays_without_improvement_ends_early():
    def draws_after(**settings):
        draws, config = rng(1), FlowConfig(width=8, depth=1, lr=1e3, check_every=5, **settings)
        fit_flow(*bimodal(40), PLAIN, config, draws)
        return draws.get_state()

    ended = draws_after(steps=10)
    assert torch.equal(draws_after(steps=500, patience=2), ended)
    assert not torch.equal(draws_after(steps=500, patience=3), ended)


def test_a_fit_without_steps_is_the_normal_one():
    fit = fit_flow(*bimodal(40), PLAIN, FlowConfig(width=8, depth=1, steps=0), rng())
    assert (fit.step, fit.loss) == (0, fit.normal_loss)


@pytest.mark.parametrize("share", [0.0, 0.99])
def test_something_is_always_kept_aside_and_something_trained_on(share):
    assert few_steps(1, held_out=share).normal_loss > 0


@pytest.mark.parametrize(
    "bad",
    [{"source": "kaimin"}, {"width": 1}, {"depth": 0}, {"steps": -1}, {"lr": 0.0},
     {"dropout": 1.0}, {"held_out": -0.1}, {"weight_decay": -1.0}],
)  # fmt: skip
def test_settings_that_cannot_stand_are_named(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        FlowConfig(**bad)
