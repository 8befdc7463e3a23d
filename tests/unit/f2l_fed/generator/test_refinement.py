"""The pull-back is the derivative of what is drawn, and refining goes no further than it helps."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

from f2l_fed.codec.config import CodecConfig
from f2l_fed.errors import ConfigError
from f2l_fed.flow import FlowConfig
from f2l_fed.generator.config import GeneratorConfig, SampleConfig
from f2l_fed.generator.fit import fit_generator
from f2l_fed.generator.generator import Generator
from f2l_fed.generator.refinement import (
    PARTS,
    RefineConfig,
    ReturnedNetworks,
    refine,
    vector_jacobian_product,
)
from f2l_fed.generator.serialization import tensors_of
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from tests.support.small import records, rng, single, small_generator, small_target, stirred

both = pytest.mark.parametrize("symmetric", [True, False])


@cache
def behind_a_vae(*, symmetric: bool) -> Generator:
    symmetry = OutputSymmetry.of(small_target(), enabled=symmetric)
    config = GeneratorConfig(
        codec=CodecConfig(kind="chunk-vae", common=4, rows=2),
        flow=FlowConfig(width=8, depth=1, steps=0),
    )
    fit = fit_generator(
        *single(*records(symmetry.size, 12)),
        small_target(),
        symmetry,
        config,
        rng(1),
        anchor=torch.zeros(symmetry.size),
    )
    return replace(fit.generator, velocity=stirred(fit.generator.velocity), config=config)


def returned_to(generator: Generator, count: int = 12, seed: int = 3) -> ReturnedNetworks:
    """Networks of new sites, and what these made of them by a rule that depends on both."""
    contexts, weights = records(generator.codec.symmetry.size, count, seed)
    expected, noise = generator.expect(contexts), generator.noise(count, rng(seed))
    drawn = generator.carry(expected, noise)
    moved = drawn + 0.3 * (weights - drawn) + 0.5
    return ReturnedNetworks(contexts=contexts, expected=expected, noise=noise, weights=moved)


def changed(generator: Generator, moves: dict[str, torch.Tensor], length: float) -> Generator:
    """A copy with its tensors moved, made through a pull-back's own names."""
    still = returned_to(generator, 4)
    copied = refine(generator, still, RefineConfig(steps=0), rng()).generator
    for name, tensor in tensors_of(copied).items():
        if name in moves:
            with torch.no_grad():
                tensor += length * moves[name]
    return copied


@both
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("codec", ["pca", "chunk-vae"])
def test_the_pull_back_agrees_with_finite_differences(symmetric, part, codec):
    make = small_generator if codec == "pca" else behind_a_vae
    generator = make(symmetric=symmetric)
    returned = returned_to(generator, 5)
    updates = torch.randn(returned.weights.shape, generator=rng(7))
    found = vector_jacobian_product(generator, returned, updates, (part,))
    assert found
    assert all(name.startswith(part) for name in found)
    direction = {name: torch.randn(value.shape, generator=rng(8)) for name, value in found.items()}
    base = generator.expect(returned.contexts)

    def value(length: float) -> torch.Tensor:
        moved = changed(generator, direction, length)
        expected = returned.expected + moved.expect(returned.contexts) - base
        return (moved.carry(expected, returned.noise).double() * updates).sum()

    step = 2e-3 / sum(float(d.square().sum()) for d in direction.values()) ** 0.5
    numeric = float(value(step) - value(-step)) / (2 * step)
    exact = sum(float((found[name].double() * direction[name]).sum()) for name in found)
    assert exact == pytest.approx(numeric, rel=0.03, abs=0.03 * float(updates.norm()))


@both
def test_what_is_carried_is_what_is_sampled(symmetric):
    generator = small_generator(symmetric=symmetric)
    expected = returned_to(generator).expected
    noise = generator.noise(len(expected), rng(5))
    assert torch.equal(generator.carry(expected, noise), generator.sample(expected, rng(5)))


def test_for_an_affine_prior_the_pull_back_is_the_least_squares_gradient():
    """With nothing drawn, a network is anchor + probe + map: its derivative can be written down."""
    generator = small_generator(symmetric=False)
    still = SampleConfig(evaluations=0, temperature=0.0)
    generator = replace(generator, config=replace(generator.config, sample=still))
    returned = returned_to(generator)
    updates = torch.randn(returned.weights.shape, generator=rng(7))
    found = vector_jacobian_product(generator, returned, updates, ("prior",))
    x, ridge = returned.contexts - generator.prior.common.x_mean, generator.prior.common
    hidden = generator.prior.symmetry.split(updates).common
    expected = {
        "prior.common.left": x.T @ hidden @ ridge.right.T,
        "prior.common.right": (x @ ridge.left).T @ hidden,
        "prior.common.y_mean": hidden.sum(0),
        "prior.common.x_mean": -(ridge.left @ ridge.right @ hidden.sum(0)),
    }
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)


@both
def test_without_updates_nothing_moves(symmetric):
    generator = small_generator(symmetric=symmetric)
    returned = returned_to(generator)
    untouched = replace(returned, weights=generator.carry(returned.expected, returned.noise))
    found = refine(generator, untouched, RefineConfig(steps=10), rng())
    assert found.steps == 0
    assert found.before == found.after < 1e-10
    ours, theirs = tensors_of(found.generator), tensors_of(generator)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@both
@pytest.mark.parametrize("part", PARTS)
def test_validation_sites_are_nearer_to_what_they_get(symmetric, part):
    generator = small_generator(symmetric=symmetric)
    returned = returned_to(generator, 40)
    found = refine(generator, returned, RefineConfig(parts=(part,)), rng())
    assert found.steps > 0
    assert found.after < 0.985 * found.before
    still = {name for name in tensors_of(generator) if not name.startswith(part)}
    ours, theirs = tensors_of(found.generator), tensors_of(generator)
    assert all(torch.equal(ours[name], theirs[name]) for name in still)
    assert not any(tensor.requires_grad for tensor in ours.values())


def test_the_generator_that_was_given_stays_as_it_is():
    generator = small_generator()
    before = {name: tensor.clone() for name, tensor in tensors_of(generator).items()}
    refine(generator, returned_to(generator, 40), RefineConfig(), rng())
    assert all(torch.equal(before[name], now) for name, now in tensors_of(generator).items())


def test_equal_seeds_refine_to_the_same_bits():
    generator = small_generator()
    returned = returned_to(generator, 24)
    one, other = (
        refine(generator, returned, RefineConfig(steps=20), rng(2), group=2) for _ in range(2)
    )
    ours, theirs = tensors_of(one.generator), tensors_of(other.generator)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@both
def test_sites_whose_updates_are_noise_are_not_followed(symmetric):
    """What the teaching sites say then is of no use to the others, and the gate sees it."""
    generator = small_generator(symmetric=symmetric)
    returned = returned_to(generator, 16)
    noisy = returned.weights + 5 * torch.randn(returned.weights.shape, generator=rng(9))
    found = refine(generator, replace(returned, weights=noisy), RefineConfig(), rng())
    assert found.after <= found.before
    assert found.steps < 3 * RefineConfig().steps


@pytest.mark.parametrize(
    "values",
    [
        {"steps": -1},
        {"length": 0.0},
        {"parts": ()},
        {"parts": ("flow",)},
        {"held_out": 0.0},
        {"held_out": 1.0},
    ],
)
def test_what_cannot_stand_is_refused(values):
    with pytest.raises(ConfigError):
        RefineConfig(**values)
