"""Records of mixed fleets."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from f2l_fed.codec.config import CodecConfig
from f2l_fed.flow import FlowConfig
from f2l_fed.generator.config import GeneratorConfig
from f2l_fed.generator.fit import GeneratorFit, fit_generator
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from tests.support.small import rng, small_target

CONFIG = GeneratorConfig(
    codec=CodecConfig(common=6, rows=2), flow=FlowConfig(width=16, depth=1, steps=20)
)

_TASKS = 4
"""Dimensions in which sites differ within a family."""


def mixed_records(
    families: int, each: int, *, told: bool = True, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Contexts and weights of two episodes, and labels, of sites of each family in turn.

    A context tells the family if ``told``.
    """
    draws, count, size = rng(seed), families * each, small_target().layout.size
    labels = torch.arange(count) % families
    centres, hints = 3 * torch.randn(2, families, size, generator=draws)
    maps = torch.randn(families, _TASKS, size, generator=draws)
    tasks = torch.randn(count, 2, _TASKS, generator=draws)
    plain = tasks @ torch.randn(_TASKS, size, generator=draws)
    weights = torch.einsum("nes,nsd->ned", tasks, maps[labels]) + centres[labels][:, None]
    weights = weights + 0.3 * torch.randn(weights.shape, generator=draws)
    return plain + told * hints[labels][:, None], weights, labels


@cache
def mixed_fit(*, told: bool = True) -> GeneratorFit:
    """A generator of two families, of 30 and 20 sites."""
    contexts, weights, labels = mixed_records(2, 30, told=told)
    kept = (labels == 0) | (torch.arange(60) < 40)
    symmetry = OutputSymmetry.of(small_target(), enabled=True)
    return fit_generator(
        contexts[kept],
        weights[kept],
        small_target(),
        symmetry,
        CONFIG,
        rng(1),
        anchor=torch.zeros(symmetry.size),
    )
