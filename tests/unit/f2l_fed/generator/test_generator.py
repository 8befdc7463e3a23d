"""Prior, codec and flow as one: what is kept, what moves, and what guidance and temperature do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from f2l_fed.codec import CODECS, fit_pca
from f2l_fed.codec.config import CodecConfig
from f2l_fed.errors import ConfigError
from f2l_fed.flow import FlowConfig, draw, solve
from f2l_fed.generator.config import AggregateConfig, GeneratorConfig, SampleConfig
from f2l_fed.generator.fit import fit_generator
from f2l_fed.prior.linear_prior import fit_prior
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.targets.body import Body
from tests.support.devices import on_devices
from tests.support.small import (
    records,
    rng,
    single,
    small_fit,
    small_generator,
    small_target,
)

both = pytest.mark.parametrize("symmetric", [True, False])
ONE_STEP = SampleConfig(solver="euler", evaluations=1)


def expected_of(generator, count=6):
    contexts, _ = records(generator.codec.symmetry.size, count, seed=3)
    return generator.expect(contexts)


@both
def test_a_sample_differs_from_the_expectation_inside_the_latent_space_only(symmetric):
    generator = small_generator(symmetric=symmetric)
    expected, codec = expected_of(generator), generator.codec
    drawn = generator.sample(expected, rng())
    kept_by_codec = codec.decode(codec.encode(expected))
    assert (expected - kept_by_codec).norm() > 0.1 * expected.norm()
    assert (drawn - expected).norm() > 0.1 * expected.norm()
    torch.testing.assert_close(
        drawn - codec.decode(codec.encode(drawn)), expected - kept_by_codec, rtol=0, atol=1e-4
    )


@both
def test_equal_seeds_draw_equal_networks_and_others_do_not(symmetric):
    generator = small_generator(symmetric=symmetric)
    expected = expected_of(generator)
    drawn = generator.sample(expected, rng(1))
    assert torch.equal(generator.sample(expected, rng(1)), drawn)
    assert not torch.equal(generator.sample(expected, rng(2)), drawn)
    assert not drawn.requires_grad


@pytest.mark.parametrize("source", ["prior", "gaussian"])
def test_without_temperature_every_draw_for_a_context_is_the_same(source):
    generator = small_generator(source=source)
    expected = expected_of(generator, 1).expand(20, -1)
    cold, warm, hot = (
        generator.sample(expected, rng(), SampleConfig(temperature=temperature)).std(0).norm()
        for temperature in (0.0, 1.0, 2.0)
    )
    assert cold < 1e-5
    assert hot > 1.2 * warm > 0.1


def test_guidance_goes_on_along_the_line_from_not_knowing_to_knowing():
    generator = small_generator()
    expected = expected_of(generator)
    free, guided, beyond = (
        generator.sample(expected, rng(), replace(ONE_STEP, guidance=strength))
        for strength in (0.0, 1.0, 3.0)
    )
    assert (guided - free).abs().max() > 1e-3
    torch.testing.assert_close(beyond - free, 3 * (guided - free), rtol=0, atol=1e-4)


def test_a_sample_is_what_the_solver_makes_of_the_source():
    generator = small_generator()
    expected, config = expected_of(generator), SampleConfig(solver="midpoint", evaluations=6)
    context = generator.codec.encode(expected)
    start = draw("prior", context, generator.spread, generator.codec.shape, rng(4))
    end = solve(
        lambda t, x: generator.velocity(t, x, context, torch.ones(len(x))),
        start,
        solver="midpoint",
        evaluations=6,
    )
    torch.testing.assert_close(
        generator.sample(expected, rng(4), config),
        expected + generator.codec.decode(end) - generator.codec.decode(context),
    )


@both
def test_a_fit_reports_what_a_gate_looks_at(symmetric):
    fit = small_fit(symmetric=symmetric)
    _, weights = records(fit.generator.codec.symmetry.size)
    torch.testing.assert_close(fit.generator.mean, weights.mean(0))
    assert fit.held_out[:, 0].shape == fit.drawn.shape == weights.shape
    assert fit.figures() == {
        "round_trip": fit.round_trip.variance,
        "round_trip_agreement": fit.round_trip.agreement,
        "flow_loss": fit.flow.loss,
        "flow_normal_loss": fit.flow.normal_loss,
        "flow_step": fit.flow.step,
        "flow_speed": fit.flow.speed,
    }
    assert 0.1 < fit.round_trip.variance < 1
    assert 0.36 < fit.round_trip.agreement < 1
    assert fit.flow.loss <= fit.flow.normal_loss


@both
def test_draws_are_as_far_from_the_expectation_as_real_networks_in_every_kind_of_coordinate(
    symmetric,
):
    generator = small_fit(symmetric=symmetric).generator
    _, weights = records(generator.codec.symmetry.size)
    held_out = small_fit(symmetric=symmetric).held_out[:, 0]
    centres = held_out.repeat(50, 1)
    config, codec = SampleConfig(solver="midpoint", evaluations=32), generator.codec
    drawn = codec.shape.split(
        codec.encode(generator.sample(centres, rng(), config)) - codec.encode(centres)
    )
    real = codec.shape.split(codec.encode(weights) - codec.encode(held_out))
    for ours, theirs in ((drawn.common, real.common), (drawn.rows, real.rows)):
        if ours.numel():
            torch.testing.assert_close(
                ours.square().mean().sqrt(), theirs.square().mean().sqrt(), rtol=0.05, atol=0
            )


@pytest.mark.parametrize("components", [1, 2, 100])
def test_the_held_out_round_trip_is_over_networks_that_the_codec_has_not_seen(components):
    symmetry = small_generator().codec.symmetry
    _, weights = records(symmetry.size, 10)
    config = GeneratorConfig(
        codec=CodecConfig(common=components, rows=components),
        flow=FlowConfig(width=8, depth=1, steps=0),
    )
    fit = fit_generator(
        *single(weights, weights),
        small_target(),
        symmetry,
        config,
        rng(),
        anchor=torch.zeros(symmetry.size),
    )
    seen, unseen = weights[:8], weights[8:]
    codec = fit_pca(seen, symmetry, common=components, rows=components)
    lost = (codec.decode(codec.encode(unseen)) - unseen).square().sum()
    kept = 1 - lost / (unseen - seen.mean(0)).square().sum()
    assert fit.round_trip.variance == pytest.approx(float(kept), abs=1e-5)
    assert fit.round_trip.variance < 0.9


@both
def test_four_records_are_enough(symmetric):
    symmetry = small_generator(symmetric=symmetric).codec.symmetry
    config = GeneratorConfig(flow=FlowConfig(width=8, depth=1, steps=3))
    fit = fit_generator(
        *single(*records(symmetry.size, 4)),
        small_target(),
        symmetry,
        config,
        rng(),
        anchor=torch.zeros(symmetry.size),
    )
    assert torch.isfinite(fit.drawn).all()


def test_with_symmetry_every_output_has_the_same_spread():
    generator = small_generator()
    rows = generator.codec.shape.split(generator.spread[None]).rows[0]
    assert torch.equal(rows, rows[:1].expand_as(rows))
    assert (generator.spread > 0).all()


def test_shared_labels_are_told_apart():
    generator = small_generator(symmetric=False)
    assert generator.codec.shape.classes == 0
    assert generator.spread.shape == (generator.codec.shape.common,)


@pytest.mark.parametrize(
    "bad", [{"solver": "rk45"}, {"evaluations": -1}, {"guidance": -0.5}, {"temperature": -1.0}]
)
def test_sampling_settings_that_cannot_stand_are_named(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        SampleConfig(**bad)


def test_a_latent_space_has_at_least_one_dimension_of_each_kind():
    with pytest.raises(ConfigError, match="common"):
        CodecConfig(common=0)
    with pytest.raises(ConfigError, match="rows"):
        CodecConfig(rows=0)


def test_a_robust_rule_keeps_one_wild_network_out_of_the_global_mean():
    symmetry = small_generator().codec.symmetry
    contexts, weights = records(symmetry.size, 9)
    weights[3] = 1e6

    def offered(rule: str, byzantine: int) -> torch.Tensor:
        config = GeneratorConfig(
            aggregate=AggregateConfig(rule=rule, byzantine=byzantine),
            flow=FlowConfig(width=8, depth=1, steps=3),
        )
        zero = torch.zeros(symmetry.size)
        fit = fit_generator(
            *single(contexts, weights), small_target(), symmetry, config, rng(), anchor=zero
        )
        return fit.generator.mean

    assert offered("mean", 0).abs().max() > 1e4
    assert offered("median", 1).abs().max() < 100


@pytest.mark.parametrize("kind", CODECS)
def test_a_generator_works_with_every_codec(kind):
    target = small_target()
    symmetry = OutputSymmetry.of(target, enabled=True)
    config = GeneratorConfig(
        codec=CodecConfig(kind=kind, common=4, rows=2), flow=FlowConfig(width=8, depth=1, steps=3)
    )
    contexts, weights = single(*records(symmetry.size, 12))
    zero = torch.zeros(symmetry.size)
    fit = fit_generator(contexts, weights, target, symmetry, config, rng(), anchor=zero)
    assert fit.generator.codec.kind == kind
    expected = fit.generator.expect(contexts[:3, 0])
    still = SampleConfig(evaluations=0, temperature=0)
    torch.testing.assert_close(fit.generator.sample(expected, rng(), still), expected)
    assert (fit.drawn - fit.held_out[:, 0]).norm(dim=1).min() > 0.1


def test_networks_of_one_site_are_on_one_side_of_the_round_trip():
    target = small_target()
    symmetry = OutputSymmetry.of(target, enabled=True)
    contexts, weights = (rows.view(7, 4, -1) for rows in records(symmetry.size, 28))
    config = GeneratorConfig(
        codec=CodecConfig(common=3, rows=2), flow=FlowConfig(width=8, depth=1, steps=0)
    )
    zero = torch.zeros(symmetry.size)
    fit = fit_generator(contexts, weights, target, symmetry, config, rng(), anchor=zero)
    seen, unseen = weights[:5].flatten(0, 1), weights[5:].flatten(0, 1)
    codec = fit_pca(seen, symmetry, common=3, rows=2)
    lost = (codec.decode(codec.encode(unseen)) - unseen).square().sum()
    kept = 1 - lost / (unseen - seen.mean(0)).square().sum()
    assert fit.round_trip.variance == pytest.approx(float(kept), abs=1e-5)


def test_a_prior_that_is_known_already_is_not_fitted_again(monkeypatch):
    head = Body.of(small_target()).head
    symmetry, zero = OutputSymmetry.of(head, enabled=True), torch.zeros(head.layout.size)
    contexts, weights = single(*records(head.layout.size, 12))
    config = GeneratorConfig(flow=FlowConfig(width=8, depth=1, steps=0))

    def fitted(prior=None):
        return fit_generator(
            contexts, weights, head, symmetry, config, rng(), anchor=zero, prior=prior
        )

    plain, known = fitted(), fit_prior(contexts, weights, symmetry, zero)
    monkeypatch.delattr("f2l_fed.generator.fit.fit_prior")
    assert len(plain.generator.prior.gate.centroids)
    assert torch.equal(fitted(known).held_out, plain.held_out)


@on_devices
@both
@pytest.mark.parametrize("source", ["prior", "gaussian"])
def test_a_device_draws_the_networks_of_the_cpu(device, symmetric, source):
    generator = small_generator(symmetric=symmetric, source=source)
    expected, there = expected_of(generator), generator.to(device)
    drawn = there.sample(expected.to(device), rng(5))
    assert drawn.device == there.device == device
    torch.testing.assert_close(drawn.cpu(), generator.sample(expected, rng(5)), rtol=0, atol=1e-4)


def test_rows_of_noise_belong_to_the_predictions_in_turn():
    generator = small_generator()
    expected, noise = expected_of(generator, 2), generator.noise(6, rng(5))
    with torch.no_grad():
        together = generator.carry(expected, noise)
        each = generator.carry(expected.repeat_interleave(3, 0), noise)
    torch.testing.assert_close(together, each, rtol=0, atol=1e-5)
