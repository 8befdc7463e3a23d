"""A site's own network on a body: its context, and the network made from the generated head.

Everything that makes a network for a site calls `adapted_network`: a round, a request for a network
alone, a newcomer, and the measurement of held-out sites.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from f2l_fed.local_training.config import EpisodesConfig, HeadConfig, Recipe
from f2l_fed.local_training.finetune import finetune
from f2l_fed.local_training.logistic_head import flat, logistic_head, logistic_heads
from f2l_fed.local_training.probe import support_set
from f2l_fed.local_training.turns import fixed_turns, turned
from f2l_fed.targets.body import Body

_NEVER = -1e4
"""Bias of a class without examples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadPairs:
    """Heads of one site on the same tasks: what its context says, and what it should have said.

    Args:
        few: (E, H) float32, heads on few examples: the contexts.
        all: (E, H) float32, heads on all examples.
    """

    few: Tensor
    all: Tensor


@torch.no_grad()
def head_pairs(
    body: Body,
    weights: Tensor,
    x: Tensor,
    y: Tensor,
    config: HeadConfig,
    episodes: EpisodesConfig,
    shots: int,
    draws: Callable[[int], torch.Generator],
) -> HeadPairs:
    """The pairs of heads that a training site returns.

    Args:
        body: The body.
        weights: (B,) float32.
        x: (n, *input_shape) float32.
        y: (n,) int64.
        config: Strengths and number of pairs.
        episodes: Whether images are turned and inverted.
        shots: Examples per class of a head on few.
        draws: The source of chance for the few examples of each pair, by its number.
    """
    known = fixed_turns(body.network.input_shape, episodes.turns, episodes.inversion)
    turns = [known[pair % len(known)] for pair in range(config.pairs)]
    features = {turn: body.features(weights, turned(x, *turn)) for turn in dict.fromkeys(turns)}
    seen = torch.stack(list(features.values()))
    complete = _heads(body, seen, y.expand(len(seen), -1), strength=config.target)
    whole = dict(zip(features, complete, strict=True))
    supports = [support_set(y, shots, draws(pair)) for pair in range(config.pairs)]
    some = [features[turn][support] for turn, support in zip(turns, supports, strict=True)]
    labels = y[torch.stack(supports)]
    strength = config.context / labels.shape[1]
    return HeadPairs(
        few=_heads(body, torch.stack(some), labels, strength=strength),
        all=torch.stack([whole[turn] for turn in turns]),
    )


@torch.no_grad()
def site_context(body: Body, weights: Tensor, x: Tensor, y: Tensor, config: HeadConfig) -> Tensor:
    """(H,) float32, a site's context: a head on all of its examples, towards zero.

    The map is fitted on heads of few; one of more examples is nearer to what it would say.

    Args:
        body: The body.
        weights: (B,) float32.
        x: (n, *input_shape) float32.
        y: (n,) int64.
        config: Strengths.
    """
    return _head(body, body.features(weights, x), y, strength=config.context / len(y))


@torch.no_grad()
def adapted_head(
    body: Body, weights: Tensor, generated: Tensor | None, x: Tensor, y: Tensor, config: HeadConfig
) -> Tensor:
    """(H,) float32, a site's head: on all of its examples, pulled towards the generated one.

    Args:
        body: The body.
        weights: (B,) float32.
        generated: (H,) float32, the head that was generated for the site; None for none, where the
            head is that of a context.
        x: (n, *input_shape) float32.
        y: (n,) int64.
        config: Strengths.
    """
    if generated is None:
        return site_context(body, weights, x, y, config)
    features = body.features(weights, x)
    return _head(body, features, y, strength=config.pull / len(y), towards=generated)


@torch.no_grad()
def class_means_head(body: Body, weights: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(H,) float32, the head that says which class mean of the features is nearest.

    A class without examples is never said.

    Args:
        body: The body, whose network has a bias.
        weights: (B,) float32.
        x: (n, *input_shape) float32.
        y: (n,) int64.
    """
    features = body.features(weights, x)
    hot = functional.one_hot(y, body.network.classes).to(features.dtype)
    means = hot.T @ features / hot.sum(0).clamp(min=1)[:, None]
    scale = body.scale(weights)
    biases = -scale * means.square().sum(1)
    biases[hot.sum(0) == 0] = _NEVER
    return flat(torch.cat([2 * scale * means, biases[:, None]], dim=1))


def adapted_network(
    body: Body,
    weights: Tensor,
    head: Tensor,
    x: Tensor,
    y: Tensor,
    config: HeadConfig,
    recipe: Recipe,
    rng: torch.Generator,
) -> Tensor:
    """(D,) float32, a site's network: body and head after steps that are pulled to their start.

    Args:
        body: The body.
        weights: (B,) float32.
        head: (H,) float32, of `adapted_head`.
        x: (n, *input_shape) float32.
        y: (n,) int64.
        config: Strength of the pull.
        recipe: The steps; none returns the start.
        rng: Draws their batches.
    """
    start = body.join(weights, head)
    if not recipe.steps:
        return start
    return finetune(body.network, start, x, y, recipe, rng, pull=config.step_pull / len(y))


def _heads(body: Body, features: Tensor, y: Tensor, *, strength: float) -> Tensor:
    bias = body.network.output_bias is not None
    return logistic_heads(features, y, body.network.classes, strength=strength, bias=bias)


def _head(
    body: Body, features: Tensor, y: Tensor, *, strength: float, towards: Tensor | None = None
) -> Tensor:
    return logistic_head(
        features,
        y,
        body.network.classes,
        strength=strength,
        towards=towards,
        bias=body.network.output_bias is not None,
    )
