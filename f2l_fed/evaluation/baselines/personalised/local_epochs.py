"""Local epochs of all sites side by side: one stack of networks, one call for a step of many."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import vmap
from torch.nn import functional

from f2l_fed.core.random_streams import generator_for
from f2l_fed.evaluation.baselines.personalised.method import PersonalisedWork
from f2l_fed.targets import Target

_FEW = 4
"""Networks below which one call for all takes longer than one for each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Minibatch:
    """One gradient step's examples of the sites that take it.

    Args:
        sites: (k,) int64, their positions.
        x: (k, batch, *input_shape) float32.
        y: (k, batch) int64.
        done: (k, 1) float32, the share of a site's steps that lies behind it.
    """

    sites: Tensor
    x: Tensor
    y: Tensor
    done: Tensor


def minibatches(
    work: PersonalisedWork, epochs: int, *purpose: str | int, share: float = 1.0
) -> Iterator[Minibatch]:
    """The minibatches of local epochs, all sites' first ones first.

    An epoch has as many steps as it takes to see all examples; a site deals its examples in a new
    random order whenever they are used up.

    Args:
        work: Sites and size of a minibatch.
        epochs: Number of epochs.
        purpose: Names of the random streams.
        share: Part of a site's examples that take part, drawn anew at each call.
    """
    dealt = []
    for site in work.sites:
        rng = generator_for(work.lineage, "personalised", *purpose, site.name)
        part = torch.randperm(len(site.y), generator=rng)[: max(round(share * len(site.y)), 1)]
        steps = epochs * -(-len(part) // work.batch)
        decks = -(-steps * work.batch // len(part))
        orders = [part[torch.randperm(len(part), generator=rng)] for _ in range(decks)]
        dealt.append(torch.cat(orders)[: steps * work.batch].view(steps, work.batch))
    counts = torch.tensor([len(rows) for rows in dealt])
    longest = counts.argsort(descending=True, stable=True)
    for step in range(int(counts.max())):
        sites = longest[: int((counts > step).sum())]
        rows = [(work.sites[site], dealt[site][step]) for site in sites.tolist()]
        yield Minibatch(
            sites=sites,
            x=torch.stack([site.x[chosen] for site, chosen in rows]),
            y=torch.stack([site.y[chosen] for site, chosen in rows]),
            done=(step / counts[sites])[:, None],
        )


def gradients(network: Target, weights: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of each network's mean cross-entropy on its own minibatch.

    Args:
        network: The architecture of all.
        weights: (k, D) float32.
        x: (k, batch, *input_shape) float32.
        y: (k, batch) int64.

    Returns:
        (k, D) float32.
    """
    theta = weights.detach().requires_grad_()
    if network.statistics or len(theta) < _FEW:
        one_by_one = zip(theta, x, strict=True)
        logits = torch.stack([network.training_logits(own, seen) for own, seen in one_by_one])
    else:
        logits = vmap(network.logits)(theta, x)
    loss = functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum")
    (found,) = torch.autograd.grad(loss / y.shape[1], theta)
    return found


def descend_side_by_side(
    work: PersonalisedWork,
    starts: Tensor,
    lr: float,
    *purpose: str | int,
    epochs: int = 1,
    falling: bool = False,
    only: Tensor | None = None,
    pull: float = 0.0,
    towards: Tensor | None = None,
) -> Tensor:
    """Every site's network after local epochs of plain gradient descent.

    Args:
        work: Sites, size of a minibatch and largest length of a gradient.
        starts: (S, D) float32; not changed.
        lr: Learning rate.
        purpose: Names of the random streams.
        epochs: Number of epochs.
        falling: Whether the learning rate falls to zero over the epochs, along a line.
        only: (D,) bool, the numbers that are trained; all if None.
        pull: Strength of the pull to ``towards``, a penalty pull / 2 * |theta - towards|².
        towards: (D,) float32; None without a pull.

    Returns:
        (S, D) float32.
    """
    theta = starts.clone()
    for batch in minibatches(work, epochs, *purpose):
        own = theta[batch.sites]
        gradient = gradients(work.network, own, batch.x, batch.y)
        length = gradient.norm(dim=1, keepdim=True)
        gradient *= work.max_gradient_norm / length.clamp(min=work.max_gradient_norm)
        if towards is not None:
            gradient += pull * (own - towards)
        if only is not None:
            gradient *= only
        theta[batch.sites] = own - lr * (1 - batch.done if falling else 1) * gradient
    return calibrated(work, theta)


def calibrated(work: PersonalisedWork, networks: Tensor) -> Tensor:
    """The networks with the statistics of batch normalisation of their sites' examples."""
    if not work.network.statistics:
        return networks
    both = zip(networks, work.sites, strict=True)
    return torch.stack([work.network.calibrated(own, site.x) for own, site in both])
