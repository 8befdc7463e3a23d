"""One fitted codec of every kind, on networks that were trained a little."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from f2l_fed.codec import Behaviour, Codec, fit_chunk_vae, fit_pca, fit_pca_vae
from f2l_fed.codec.config import ChunkVaeConfig
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.finetune import finetune
from f2l_fed.local_training.probe import anchor
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from tests.support.small import examples, rng, small_target

LEARNED = {"chunk-vae": fit_chunk_vae, "pca-vae": fit_pca_vae}
KINDS = ("pca", *LEARNED)


@cache
def trained_networks(count: int = 40) -> Tensor:
    """(count, D) float32, one network for each of as many tasks."""
    target = small_target()
    start = anchor(target, "codecs")
    recipe = Recipe(steps=30, lr=0.2, momentum=0.9, batch=0)
    return torch.stack(
        [
            finetune(target, start, *examples(target, 24, seed), recipe, rng())
            for seed in range(count)
        ]
    )


def fit_codec(
    kind: str,
    symmetric: bool,
    weights: Tensor,
    *,
    seed: int = 0,
    common: int = 8,
    rows: int = 3,
    steps: int = 40,
) -> Codec:
    """A codec of a kind, with a schedule for tests."""
    symmetry = OutputSymmetry.of(small_target(), enabled=symmetric)
    if kind == "pca":
        return fit_pca(weights, symmetry, common=common, rows=rows)
    config = ChunkVaeConfig(
        common=common, rows=rows, chunk=8, hidden=16, steps=steps, batch=16, inputs=16, lr=2e-3
    )
    return LEARNED[kind](weights, symmetry, Behaviour.of(small_target()), config, rng(seed))


@cache
def fitted_codec(kind: str, symmetric: bool) -> Codec:
    """`fit_codec` on the first thirty of the trained networks."""
    return fit_codec(kind, symmetric, trained_networks()[:30])
