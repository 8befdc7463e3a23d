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
from f2l_fed.local_training.finetune import finetune, loss_and_accuracy
from f2l_fed.local_training.logistic_head import flat, logistic_head
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


def context_head(body: Body, features: Tensor, y: Tensor, config: HeadConfig) -> Tensor:
    """(H,) float32, the head on some examples that is a site's context.

    Args:
        body: The body.
        features: (n, F) float32, of these examples.
        y: (n,) int64.
        config: Strengths.
    """
    return _head(body, features, y, strength=config.context / len(y))


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
    seen: dict[tuple[int, bool], tuple[Tensor, Tensor]] = {}
    few, whole = [], []
    for pair in range(config.pairs):
        turn = known[pair % len(known)]
        if turn not in seen:
            features = body.features(weights, turned(x, *turn) if any(turn) else x)
            seen[turn] = features, _head(body, features, y, strength=config.target)
        features, complete = seen[turn]
        support = support_set(y, shots, draws(pair))
        few.append(context_head(body, features[support], y[support], config))
        whole.append(complete)
    return HeadPairs(few=torch.stack(few), all=torch.stack(whole))


@torch.no_grad()
def site_context(
    body: Body,
    weights: Tensor,
    x: Tensor,
    y: Tensor,
    config: HeadConfig,
    shots: int,
    rng: torch.Generator,
) -> Tensor:
    """(H,) float32, a site's context: the first of `head_pairs`' heads on few examples."""
    support = support_set(y, shots, rng)
    return context_head(body, body.features(weights, x[support]), y[support], config)


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
    features = body.features(weights, x)
    if generated is None:
        return context_head(body, features, y, config)
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

    Steps that end above their start, in the loss that they descend on, are not taken.

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
    pull = config.step_pull / len(y)
    made = finetune(body.network, start, x, y, recipe, rng, pull=pull)
    before, after = (loss_and_accuracy(body.network, one, x, y)[0] for one in (start, made))
    worse = not after + pull / 2 * float((made - start).square().sum()) <= before
    return start if worse else made


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
