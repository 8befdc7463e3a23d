"""An untrained field is exact for normal targets, training beats it, withheld is withheld."""

from __future__ import annotations

import copy
from dataclasses import replace
from math import pi

import pytest
import torch

from f2l_fed.codec.latent_shape import LatentShape
from f2l_fed.errors import ConfigError
from f2l_fed.flow import (
    SOURCES,
    DiagonalNormal,
    FlowConfig,
    VelocityField,
    draw,
    fit_flow,
    guided,
    solve,
)
from f2l_fed.flow.velocity_regression import VelocityTraining, validation_split
from tests.support.latents import PLAIN, SHAPE, bimodal, box, shares
from tests.support.small import rng, stirred


def integrate(field, start, context, evaluations=4, solver="midpoint"):
    known = torch.ones(len(context))
    with torch.no_grad():
        return solve(
            lambda t, x: field(t, x, context, known),
            start,
            solver=solver,
            evaluations=evaluations,
        )


def start_of(source, context, spread, shape):
    return SOURCES[source].start(DiagonalNormal(context, spread), box(shape).normal)


def blank(shape, spread, source, *, depth=1):
    return VelocityField(shape, spread, source, width=8, depth=depth, initial=box(shape).normal)


@pytest.mark.parametrize(("solver", "last"), [("euler", 0.9), ("midpoint", 0.9), ("heun", 1.0)])
def test_a_solver_evaluates_as_often_as_it_is_told_inside_the_unit_interval(solver, last):
    times = []

    def velocity(t, x):
        times.extend(t.tolist())
        return torch.ones_like(x)

    end = solve(velocity, torch.zeros(2, 3), solver=solver, evaluations=10)
    assert len(times) == 10
    assert min(times) == 0
    assert max(times) == pytest.approx(last)
    torch.testing.assert_close(end, torch.ones(2, 3))


@pytest.mark.parametrize("shape", [SHAPE, PLAIN])
def test_sources_are_centred_where_they_say_and_as_wide(shape):
    expected = torch.linspace(-5, 5, shape.size).expand(20_000, -1)
    spread = torch.linspace(0.5, 2, shape.size)
    uniform, initial = 4 / 12**0.5, box(shape)
    lost = (2 / 3) ** 0.5 if shape.width else 1
    lengths = [shape.common, shape.size - shape.common]
    for source, centre, width in (
        ("prior", expected[0], spread),
        ("gaussian", torch.zeros(shape.size), torch.ones(shape.size)),
        (
            "kaiming",
            torch.tensor([3.0, 0.0]).repeat_interleave(torch.tensor(lengths)),
            torch.tensor([1.0, lost]).repeat_interleave(torch.tensor(lengths)) * uniform,
        ),
    ):
        start = draw(source, expected, spread, shape, rng(), temperature=1.5, initial=initial)
        torch.testing.assert_close(start.mean(0), centre, rtol=0, atol=0.1)
        torch.testing.assert_close(start.std(0), 1.5 * width, rtol=0.05, atol=0)


def test_initialisations_keep_the_shape_of_their_distribution():
    initial = box(PLAIN)
    context, ones = torch.zeros(5_000, 2), torch.ones(2)
    start = draw("kaiming", context, ones, PLAIN, rng(), initial=initial)
    # A normal of the same width would leave the box with a probability of one in twelve.
    assert (start - 3).abs().max() < 2.001
    torch.testing.assert_close(start, initial.make(5_000, rng()))


def test_initialisations_know_no_output_from_another():
    normal = box(SHAPE).normal
    rows = SHAPE.split(torch.stack([normal.centre, normal.width])).rows
    assert not rows[0].any()
    assert torch.equal(rows[1], rows[1, :1].expand(3, -1))
    # The pooled width is the root mean square of all that was seen.
    seen = SHAPE.split(box(SHAPE).make(50_000, rng(1))).rows
    torch.testing.assert_close(rows[1, 0], seen.square().mean((0, 1)).sqrt(), rtol=0.03, atol=0)


def test_without_anything_to_make_initialisations_from_the_source_says_so():
    context, ones = torch.zeros(40, 2), torch.ones(2)
    with pytest.raises(ConfigError, match="random initialisations"):
        draw("kaiming", context, ones, PLAIN, rng())
    with pytest.raises(ConfigError, match="random initialisations"):
        fit_flow(*bimodal(40), PLAIN, FlowConfig(source="kaiming"), rng())


@pytest.mark.parametrize("source", SOURCES)
def test_an_untrained_field_carries_every_start_to_its_place_in_the_normal_target(source):
    draws = rng(2)
    spread = torch.tensor([0.3, 2.0, 0.7, 1.4, 0.7, 1.4, 0.7, 1.4])
    context = 3 * torch.randn(1_000, SHAPE.size, generator=draws)
    start = draw(source, context, spread, SHAPE, draws, initial=box(SHAPE))
    end = integrate(blank(SHAPE, spread, source), start, context, evaluations=60)
    normal = start_of(source, context, spread, SHAPE)
    # Between normals the flow is affine: so many deviations from the centre stay so many.
    expected = context + spread * (start - normal.centre) / normal.width
    torch.testing.assert_close(end, expected, rtol=0, atol=0.01)


def test_every_parameter_has_a_say():
    field, draws = stirred(blank(SHAPE, torch.ones(8), "prior", depth=2)), rng(1)
    t, known = torch.rand(4, generator=draws), torch.tensor([1.0, 1, 0, 1])
    x, context = torch.randn(2, 4, SHAPE.size, generator=draws)
    with torch.no_grad():
        before = field(t, x, context, known)
        for name, parameter in field.named_parameters():
            # What all rows share at the end moves none of them against their mean.
            if name not in {"row_blocks.1.outer.bias", "row_out.bias"}:
                change = torch.randn(parameter.shape, generator=draws)
                parameter.add_(change)
                assert (field(t, x, context, known) - before).abs().max() > 1e-3, name
                parameter.sub_(change)


def test_outputs_and_the_common_part_see_each_other():
    field = stirred(blank(SHAPE, torch.ones(8), "prior", depth=2))
    t, known, context = torch.full((1,), 0.4), torch.ones(1), torch.zeros(1, 8)
    base = torch.randn(1, SHAPE.size, generator=rng(1))

    def moved_by(index):
        x = base.clone()
        x[0, index] += 1
        with torch.no_grad():
            change = field(t, x, context, known) - field(t, base, context, known)
        parts = SHAPE.split(change)
        return parts.common.abs().max() > 1e-4, (parts.rows.abs().amax((0, 2)) > 1e-4).tolist()

    assert moved_by(0) == (True, [True, True, True])
    assert moved_by(SHAPE.common) == (True, [True, True, True])


def learned(field, plain, t, offset, context, known):
    """What the network adds at the same state relative to the path, so only the context differs."""
    x = t[:, None] * context + offset
    flags = torch.full((1,), known)
    with torch.no_grad():
        return field(t, x, context, flags) - plain(t, x, context, flags)


def test_around_the_prior_a_withheld_context_still_moves_the_path_but_not_the_network():
    plain = blank(SHAPE, torch.ones(SHAPE.size), "prior")
    field, offset = stirred(plain), torch.randn(1, SHAPE.size, generator=rng(1))
    a, b = torch.randn(2, 1, SHAPE.size, generator=rng(2))
    t = torch.tensor([0.3])

    def at(context, known):
        return learned(field, plain, t, offset + 0.7 * context, context, known)

    torch.testing.assert_close(at(a, 0.0), at(b, 0.0), rtol=0, atol=1e-5)
    assert (at(a, 1.0) - at(b, 1.0)).abs().max() > 0.01


@pytest.mark.parametrize("source", ["gaussian", "kaiming"])
def test_elsewhere_a_withheld_context_leaves_no_trace_at_all(source):
    field, draws = stirred(blank(SHAPE, torch.full((8,), 0.3), source, depth=2)), rng(1)
    t, x = torch.rand(5, generator=draws), torch.randn(5, SHAPE.size, generator=draws)
    contexts, some = torch.randn(2, 5, SHAPE.size, generator=draws), torch.tensor([1.0, 0, 1, 0, 0])
    with torch.no_grad():
        first, second = (field(t, x, context, some) for context in contexts)
    differs = (first - second).abs().amax(1) > 1e-3
    assert differs.tolist() == [True, False, True, False, False]
    assert torch.equal(first[~differs], second[~differs])


@pytest.mark.parametrize("source", ["gaussian", "kaiming"])
def test_without_a_context_an_untrained_field_makes_whitened_latents(source):
    context, spread = torch.full((4_000, SHAPE.size), 7.0), torch.full((SHAPE.size,), 0.1)
    field = blank(SHAPE, spread, source)
    start = draw(source, context, spread, SHAPE, rng(), initial=box(SHAPE))
    velocity = field.conditioned_on(context, torch.zeros(1))
    with torch.no_grad():
        end = solve(velocity, start, solver="heun", evaluations=60)
    assert end.mean(0).abs().max() < 5 / 4_000**0.5
    assert (end.std(0) - 1).abs().max() < 0.05


@pytest.mark.parametrize("source", ["gaussian", "kaiming"])
def test_a_fit_without_contexts_is_the_same_whatever_they_are(source):
    targets, expected, spread = bimodal(40)
    config = FlowConfig(source=source, width=8, depth=1, steps=10, check_every=5, dropout=1.0)
    one, other = (
        fit_flow(targets, context, spread, PLAIN, config, rng(1), initial=box(PLAIN))
        for context in (expected, 100 - 3 * expected)
    )
    assert (one.loss, one.normal_loss, one.step) == (other.loss, other.normal_loss, other.step)
    for name, value in one.field.state_dict().items():
        assert torch.equal(value, other.field.state_dict()[name])


def test_what_is_known_of_initialisations_is_kept_with_the_weights():
    ones, weights = torch.ones(2), blank(PLAIN, torch.ones(2), "kaiming").state_dict()
    empty = VelocityField(PLAIN, ones, "kaiming", width=8, depth=1)
    empty.load_state_dict(weights)
    torch.testing.assert_close(empty.initial.centre, box(PLAIN).normal.centre)
    torch.testing.assert_close(empty.initial.width, box(PLAIN).normal.width)
    assert blank(PLAIN, ones, "prior").initial is None


def sums_of_rows(latents):
    return SHAPE.split(latents).rows.sum(1)


def test_neither_source_nor_velocity_leaves_the_space_where_the_rows_sum_to_zero():
    ones, context = torch.ones(SHAPE.size), torch.zeros(4, SHAPE.size)
    start = draw("gaussian", context, ones, SHAPE, rng())
    field = stirred(blank(SHAPE, ones, "gaussian"))
    velocity = field(torch.rand(4, generator=rng()), start, context, torch.ones(4))
    for latents in (start, velocity):
        assert SHAPE.split(latents).rows.abs().max() > 0.1
        torch.testing.assert_close(sums_of_rows(latents), torch.zeros(4, 2), rtol=0, atol=1e-5)


@pytest.fixture(scope="module", params=list(SOURCES))
def fitted(request):
    config = FlowConfig(source=request.param, width=64, depth=1, steps=300, lr=5e-3, check_every=25)
    return fit_flow(*bimodal(), PLAIN, config, rng(1), initial=box(PLAIN)), request.param


def test_training_finds_structure_that_normal_targets_do_not_have(fitted):
    fit, _ = fitted
    assert fit.loss < 0.9 * fit.normal_loss
    assert 0 < fit.step <= 300


def test_samples_reach_both_modes_and_little_lies_between(fitted):
    fit, source = fitted
    context = 0.45 * torch.randn(2_000, 2, generator=rng(7))
    start = draw(source, context, bimodal()[2], PLAIN, rng(8), initial=box(PLAIN))
    end = integrate(fit.field, start, context, evaluations=32)
    left, between, right = shares(end - context)
    assert min(left, right) > 0.3
    assert between < 0.12


def test_what_depends_on_the_context_is_learned_unless_it_is_withheld():
    expected = torch.randn(400, 2, generator=rng(1))
    targets = expected + 0.5 * expected.sign()
    config = FlowConfig(width=32, depth=1, steps=150, lr=5e-3, check_every=25)
    field = fit_flow(targets, expected, torch.full((2,), 0.5), PLAIN, config, rng(2)).field
    context = torch.tensor([[1.0, 1.0], [-1.0, -1.0]]).repeat_interleave(500, 0)
    start = draw("prior", context, torch.full((2,), 0.5), PLAIN, rng(3))
    for guidance, side in ((1.0, 0.5), (0.0, 0.0)):
        with torch.no_grad():
            velocity = guided(field, context, guidance=guidance)
            off = solve(velocity, start, solver="midpoint", evaluations=16) - context
        assert off[:500].mean() == pytest.approx(side, abs=0.12)
        assert off[500:].mean() == pytest.approx(-side, abs=0.12)


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
    assert torch.equal(draws_after(steps=500, patience=2, look=3), ended)
    assert torch.equal(draws_after(steps=500, patience=3, look=2), ended)
    assert not torch.equal(draws_after(steps=500, patience=3, look=3), ended)


def test_a_fit_without_steps_is_the_normal_one():
    fit = fit_flow(*bimodal(40), PLAIN, FlowConfig(width=8, depth=1, steps=0), rng())
    assert (fit.step, fit.loss, fit.wins) == (0, fit.normal_loss, False)
    gained = replace(fit, loss=fit.normal_loss - 0.1)
    assert [replace(gained, error=error).wins for error in (0.04, 0.06)] == [True, False]


def test_the_speed_of_exact_transport_is_that_of_its_closed_form():
    # Between equally wide normals: the integral of (2t - 1)² / (2 ((1 - t)² + t²)) over t.
    expected = torch.zeros(256, 2)
    targets, spread = torch.randn(256, 2, generator=rng(1)), torch.ones(2)
    still = FlowConfig(width=8, depth=1, steps=0)
    speed = fit_flow(targets, expected, spread, PLAIN, still, rng(2)).speed
    assert speed == pytest.approx((1 - pi / 4) ** 0.5, abs=0.05)


def test_a_flow_without_any_way_to_go_is_not_taken_for_one_that_stands_still():
    targets = torch.randn(40, 2, generator=rng(1))
    still = FlowConfig(width=8, depth=1, steps=0)
    assert fit_flow(targets, targets, torch.zeros(2), PLAIN, still, rng(2)).speed == 1.0


def test_records_of_one_site_are_for_validation_or_for_training_together():
    for share, sites in ((0.0, 1), (0.3, 3), (0.99, 9)):
        config = FlowConfig(held_out=share)
        kept, train = validation_split(40, config.held_out, rng(), group=4)
        assert sorted([*kept.tolist(), *train.tolist()]) == list(range(40))
        assert not {*(kept // 4).tolist()} & {*(train // 4).tolist()}
        assert len(kept) == 4 * sites


def test_a_fit_learns_nothing_of_a_site_from_its_other_records():
    # Four copies of each record: only if they are parted, those kept aside are known by heart.
    targets, expected = torch.randn(2, 20, 8, generator=rng(1)).repeat_interleave(4, 1)
    shape, spread = LatentShape(common=8, classes=0, width=0), (targets - expected).std(0)
    config = FlowConfig(width=64, depth=1, steps=200, lr=5e-3, check_every=25)
    together, parted = (
        fit_flow(targets, expected, spread, shape, config, rng(2), group=group) for group in (4, 1)
    )
    assert together.loss > 0.9 * together.normal_loss
    assert parted.loss < 0.7 * parted.normal_loss


@pytest.mark.parametrize("share", [0.0, 0.99])
def test_something_is_always_for_validation_and_something_for_training(share):
    assert few_steps(1, held_out=share).normal_loss > 0


@pytest.mark.parametrize(
    "bad",
    [{"source": "kaimin"}, {"coupling": "to"}, {"width": 1}, {"depth": 0}, {"steps": -1},
     {"lr": 0.0}, {"dropout": 1.1}, {"dropout": -0.1}, {"held_out": -0.1}, {"held_out": 1.0},
     {"weight_decay": -1.0}, {"batch": 513, "coupling": "ot"}],
)  # fmt: skip
def test_settings_that_cannot_stand_are_named(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        FlowConfig(**bad)


@pytest.mark.parametrize("looks", [1, 3])
def test_a_fit_that_goes_on_from_a_checkpoint_ends_with_the_same_bits_after_fewer_steps(looks):
    kept = []

    def fit(**training):
        steps = []

        def counted(_):
            steps.append(1)

        draws = rng(3)
        targets = torch.randn(40, SHAPE.size, generator=draws)
        config = FlowConfig(steps=80, width=8, depth=1, check_every=20, patience=9, lr=5e-3)
        training = VelocityTraining(merge=counted, **training)
        size = torch.ones(SHAPE.size)
        made = fit_flow(targets, targets.roll(1, 1), size, SHAPE, config, draws, training=training)
        return made, draws.get_state(), len(steps)

    whole, end, steps = fit(keep=lambda state: kept.append(copy.deepcopy(state)))
    assert steps == 80
    again, same_end, rest = fit(last=kept[looks - 1])
    assert rest == 80 - 20 * looks
    assert torch.equal(end, same_end)
    assert (again.loss, again.normal_loss, again.step) == (
        whole.loss,
        whole.normal_loss,
        whole.step,
    )
    states = zip(again.field.state_dict().values(), whole.field.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in states)
