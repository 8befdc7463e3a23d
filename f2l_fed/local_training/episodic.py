"""Episodic training of a body: it learns features in which a head of few examples is good.

Every step draws an episode from a site's own examples: a few of each class to make a head, others
to measure it. Half of the loss is that of class means, with a learnt scale of distances; half that
of a ridge head, which is solved in closed form and so differentiated exactly.

Reference:
    Snell et al.: Prototypical networks for few-shot learning, arXiv 1703.05175 (class means).
    Bertinetto et al.: Meta-learning with differentiable closed-form solvers, arXiv 1805.08136.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from f2l_fed.core.placement import moved
from f2l_fed.local_training.config import EpisodesConfig
from f2l_fed.local_training.finetune import clip_by_norm
from f2l_fed.local_training.logistic_head import with_ones
from f2l_fed.local_training.turns import drawn_turn
from f2l_fed.targets.body import Body

_RIDGE = 0.1
"""Strength of the ridge head, relative to the mean squared length of the support's features."""

_RIDGE_SCALE = 10.0
"""Factor on its scores, together with the learnt scale."""


@dataclass(frozen=True, slots=True)
class Episode:
    """The examples of one episode, by index, with classes numbered anew.

    Args:
        support: (s,) int64, the examples that heads are made on.
        support_labels: (s,) int64, from 0.
        query: (q,) int64, the examples that they are measured on.
        query_labels: (q,) int64.
    """

    support: Tensor
    support_labels: Tensor
    query: Tensor
    query_labels: Tensor


EpisodeLoss = Callable[[Body, Tensor, Tensor, Episode], Tensor]
"""The loss of one episode, as `episode_loss`."""


def train_body(
    body: Body,
    weights: Tensor,
    x: Tensor,
    y: Tensor,
    config: EpisodesConfig,
    steps: int,
    rng: torch.Generator,
    loss: EpisodeLoss | None = None,
) -> Tensor:
    """The body after some episodic steps on a site's examples.

    Args:
        body: The body.
        weights: (B,) float32, the start; not changed.
        x: (n, *input_shape) float32.
        y: (n,) int64.
        config: Settings of episodes and descent.
        steps: Number of steps, each on an episode of its own.
        rng: Draws the episodes.
        loss: Of an episode; `episode_loss` if None.

    Returns:
        (B,) float32; the start itself where fewer than two classes have two examples, or nothing
        of the body is trained.
    """
    if steps == 0 or body.is_frozen or not has_episode(y):
        return weights.detach().clone()
    theta = weights.detach().to(body.network.device, copy=True)
    momentum = torch.zeros_like(theta)
    for _ in range(steps):
        gradient = episode_gradient(body, theta, x, y, config, rng, loss)
        momentum.mul_(config.momentum).add_(clip_by_norm(gradient, config.max_gradient_norm))
        theta.sub_(momentum, alpha=config.lr)
    return body.calibrated(theta, x).to(weights.device)


def episode_gradient(
    body: Body,
    weights: Tensor,
    x: Tensor,
    y: Tensor,
    config: EpisodesConfig,
    rng: torch.Generator,
    loss: EpisodeLoss | None = None,
) -> Tensor:
    """(B,) float32, the gradient of the loss of one episode that is drawn; see `train_body`.

    It is where the weights are, and zero where fewer than two classes have two examples: there is
    nothing to tell apart.
    """
    if not has_episode(y):
        return torch.zeros_like(weights)
    episode = draw_episode(y, config.support, config.query, rng)
    chosen = x[torch.cat([episode.support, episode.query])]
    chosen = moved(drawn_turn(chosen, config.turns, config.inversion, rng), weights.device)
    theta = weights.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad((loss or episode_loss)(body, theta, chosen, episode), theta)
    return gradient


def has_episode(y: Tensor) -> bool:
    """Whether an episode can be drawn: two classes have two of the (n,) int64 labels."""
    return int((y.bincount() >= 2).sum()) >= 2


def draw_episode(y: Tensor, support: int, query: int, rng: torch.Generator) -> Episode:
    """Draws an episode of all classes with two examples or more.

    A class with too few examples gives a third of them to the support, but at least one to both.

    Args:
        y: (n,) int64.
        support: Support examples per class, where there are enough.
        query: Query examples per class, likewise.
        rng: Draws the examples.
    """
    supports, queries = list[Tensor](), list[Tensor]()
    for own in y.argsort(stable=True).split(y.bincount().tolist()):
        if len(own) < 2:
            continue
        own = own[torch.randperm(len(own), generator=rng)]
        few = support if len(own) >= support + query else max(1, min(support, len(own) // 3))
        supports.append(own[:few])
        queries.append(own[few : few + query])
    return Episode(torch.cat(supports), _numbered(supports), torch.cat(queries), _numbered(queries))


def _numbered(parts: list[Tensor]) -> Tensor:
    """The number of the part that each element is in, from 0."""
    return torch.arange(len(parts)).repeat_interleave(torch.tensor([len(part) for part in parts]))


def episode_loss(body: Body, weights: Tensor, x: Tensor, episode: Episode) -> Tensor:
    """() float32, half the loss of class means and half that of a ridge head on the queries.

    Args:
        body: The body.
        weights: (B,) float32.
        x: (s + q, *input_shape) float32, the support's inputs and then the queries'.
        episode: The labels of both.
    """
    support, hot, query = _sides(body, weights, x, episode)
    scale = body.scale(weights)
    near = _near_scores(scale, support, hot, query)
    ridge = _RIDGE_SCALE * scale * _ridge_scores(support, hot, query)
    labels = moved(episode.query_labels, near.device)
    return (functional.cross_entropy(near, labels) + functional.cross_entropy(ridge, labels)) / 2


def class_means_loss(body: Body, weights: Tensor, x: Tensor, episode: Episode) -> Tensor:
    """() float32, the loss of class means alone on the queries; arguments as `episode_loss`."""
    support, hot, query = _sides(body, weights, x, episode)
    near = _near_scores(body.scale(weights), support, hot, query)
    return functional.cross_entropy(near, moved(episode.query_labels, near.device))


def _sides(
    body: Body, weights: Tensor, x: Tensor, episode: Episode
) -> tuple[Tensor, Tensor, Tensor]:
    """Features of the support, its labels as (s, K) ones and zeros, features of the queries."""
    count = len(episode.support)
    features = body.training_features(weights, x)
    hot = functional.one_hot(episode.support_labels).to(features.dtype)
    return features[:count], moved(hot, features.device), features[count:]


def _near_scores(scale: Tensor, support: Tensor, hot: Tensor, query: Tensor) -> Tensor:
    """(q, K) scores by the distance to the means of the support's classes."""
    means = hot.T @ support / hot.sum(0)[:, None]
    return scale * (2 * query @ means.T - means.square().sum(1))


def _ridge_scores(support: Tensor, hot: Tensor, query: Tensor) -> Tensor:
    """(q, K) scores of a ridge regression of the support's classes, by its (s, s) Gram matrix."""
    s, q = with_ones(support), with_ones(query)
    strength = _RIDGE * s.square().sum(1).mean().detach()
    gram = s @ s.T + strength * torch.eye(len(s), dtype=s.dtype, device=s.device)
    # Never singular; checking that would wait for the device.
    dual: Tensor = torch.linalg.solve_ex(gram, hot - 1 / hot.shape[1]).result
    return q @ (s.T @ dual)
