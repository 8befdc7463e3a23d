"""Fidelity of a codec's round trip for networks that it never saw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from statistics import fmean

import torch
from torch import Tensor

from f2l_fed.codec.codec import Codec
from f2l_fed.local_training.finetune import loss_and_accuracy
from f2l_fed.matrices.blocks import blocks
from f2l_fed.targets.target import Target

FitOnWeights = Callable[[Tensor], Codec]
"""(n, D) weights to a codec."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTrip:
    """Fidelity of decode(encode(.)) for networks that the codec has not seen.

    Args:
        variance: Share of their variance around the seen ones' mean.
        agreement: Share of inputs, made without data, on which a network and its copy predict the
            same class.
    """

    variance: float
    agreement: float


def round_trip(
    target: Target,
    fit: FitOnWeights,
    weights: Tensor,
    inputs: Tensor,
    *,
    group: int = 1,
    compared: int,
) -> RoundTrip:
    """The fidelity of a codec, of which only a few networks are in memory at a time.

    Args:
        target: The networks' architecture.
        fit: Gets the first four fifths of the weights.
        weights: (n, D) float32; n >= 3, in two groups or more.
        inputs: (m, *input_shape) float32, for example `synthetic_inputs`.
        group: Consecutive networks that are seen together or not at all.
        compared: Most groups whose first network's predictions are compared.
    """
    cut = _seen(weights, group)
    codec, mean, unseen = fit(weights[:cut]), weights[:cut].mean(0), weights[cut:]
    lost, whole, same = 0.0, 0.0, list[float]()
    for some in blocks(weights.shape[1], len(unseen)):
        own = unseen[some]
        copies = codec.decode(codec.encode(own))
        lost += float((copies - own).square().sum())
        whole += float((own - mean).square().sum())
        for place, network, copy in zip(count(some.start), own, copies, strict=False):
            if place % group == 0 and place // group < compared:
                same.append(agreement(target, network[None], copy[None], inputs))
    return RoundTrip(variance=1 - lost / max(whole, 1e-30), agreement=fmean(same))


def unseen_copies(fit: FitOnWeights, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Networks that a codec has not seen, and the copies of them that it makes.

    Args:
        fit: Gets the first four fifths of the weights.
        weights: (n, D) float32; n >= 3.

    Returns:
        The last fifth (m, D), and ``decode(encode(.))`` of it.
    """
    cut = _seen(weights, 1)
    codec, unseen = fit(weights[:cut]), weights[cut:]
    return unseen, codec.decode(codec.encode(unseen))


def _seen(weights: Tensor, group: int) -> int:
    """The number of networks that a codec sees, which takes two."""
    groups = len(weights) // group
    return group * max(1, groups * 4 // 5, 3 - min(group, 2))


def functional_round_trip(
    target: Target, fit: FitOnWeights, weights: Tensor, inputs: Tensor
) -> float:
    """`agreement` of networks that a codec never saw with its copies.

    Args:
        target: The networks' architecture.
        fit: See `unseen_copies`.
        weights: (n, D) float32, n >= 3.
        inputs: (m, *input_shape) float32, for example `synthetic_inputs`.
    """
    return agreement(target, *unseen_copies(fit, weights), inputs)


@torch.no_grad()
def agreement(target: Target, weights: Tensor, others: Tensor, inputs: Tensor) -> float:
    """Share of inputs on which networks and their counterparts predict the same class.

    Args:
        target: The networks' architecture.
        weights: (n, D) float32.
        others: (n, D) float32.
        inputs: (m, *input_shape) float32.
    """
    same = [
        (target.logits(a, inputs).argmax(1) == target.logits(b, inputs).argmax(1)).float().mean()
        for a, b in zip(weights, others, strict=True)
    ]
    return float(torch.stack(same).mean())


def accuracy_kept(
    target: Target, codec: Codec, weights: Tensor, tests: Sequence[tuple[Tensor, Tensor]]
) -> float:
    """Accuracy of networks that went through a codec over that of the networks as they were.

    Args:
        target: The networks' architecture.
        codec: A codec that never saw them.
        weights: (n, D) float32.
        tests: Inputs and labels of each network's own task.
    """
    copies = codec.decode(codec.encode(weights))
    before, after = (
        sum(loss_and_accuracy(target, w, x, y)[1] for w, (x, y) in zip(some, tests, strict=True))
        for some in (weights, copies)
    )
    return after / max(before, 1e-9)
