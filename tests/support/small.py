"""Targets, records and generators small enough to fit in a fraction of a second."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache, partial

import torch
from torch import Tensor, nn

from f2l_fed.codec.config import CodecConfig
from f2l_fed.flow import FlowConfig, VelocityField
from f2l_fed.generator.config import GeneratorConfig, SampleConfig
from f2l_fed.generator.fit import GeneratorFit, fit_generator
from f2l_fed.generator.generator import Generator
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.targets import Target
from f2l_fed.targets.networks.mlp import mlp


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_target(features: int = 4, classes: int = 3, hidden: int = 5) -> Target:
    factory = partial(mlp, (features,), classes, hidden)
    return Target.of("small", factory, (features,), classes)


def examples(target: Target, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """One cloud of points for each class, every class present."""
    draws = rng(seed)
    y = torch.arange(count) % target.classes
    centres = 2 * torch.randn(target.classes, *target.input_shape, generator=draws)
    return centres[y] + torch.randn(count, *target.input_shape, generator=draws), y


def records(size: int, count: int = 40, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Contexts, and weights that depend on them linearly but for a little noise."""
    draws = rng(seed)
    contexts = torch.randn(count, size, generator=draws)
    weights = contexts @ torch.randn(size, size, generator=draws) / size**0.5
    return contexts, 1 + weights + 0.3 * torch.randn(count, size, generator=draws)


def single(*rows: Tensor) -> tuple[Tensor, ...]:
    """(n, D) rows as those of n sites with one episode each."""
    return tuple(matrix[:, None] for matrix in rows)


@cache
def small_fit(*, symmetric: bool = True, source: str = "prior") -> GeneratorFit:
    """A generator of `small_target` with a latent space smaller than the weights."""
    symmetry = OutputSymmetry.of(small_target(), enabled=symmetric)
    config = GeneratorConfig(
        codec=CodecConfig(common=6, rows=2),
        flow=FlowConfig(source=source, width=16, depth=1, steps=60, lr=5e-3, check_every=20),
    )
    return fit_generator(
        *single(*records(symmetry.size)),
        small_target(),
        symmetry,
        config,
        rng(1),
        anchor=torch.zeros(symmetry.size),
    )


def stirred(field: VelocityField, seed: int = 0) -> VelocityField:
    """A copy with random weights everywhere, as if it had learned something."""
    field, draws = copy.deepcopy(field), rng(seed)
    for parameter in field.parameters():
        nn.init.normal_(parameter, std=0.3, generator=draws)
    return field.requires_grad_(False)


@cache
def small_generator(*, symmetric: bool = True, source: str = "prior") -> Generator:
    """That of `small_fit` with a field that is far from the normal one."""
    generator = small_fit(symmetric=symmetric, source=source).generator
    config = replace(generator.config, sample=SampleConfig())
    return replace(generator, velocity=stirred(generator.velocity), config=config)
