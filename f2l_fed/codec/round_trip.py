"""Fidelity of a codec's round trip for networks that it never saw."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from f2l_fed.codec.codec import Codec
from f2l_fed.local_training.finetune import loss_and_accuracy
from f2l_fed.targets.target import Target

FitOnWeights = Callable[[Tensor], Codec]
"""(n, D) weights to a codec."""


def unseen_copies(fit: FitOnWeights, weights: Tensor, *, group: int = 1) -> tuple[Tensor, Tensor]:
    """Networks that a codec has not seen, and the copies of them that it makes.

    Args:
        fit: Gets the first four fifths of the weights.
        weights: (n, D) float32; n >= 3, in two groups or more.
        group: Consecutive networks that are seen together or not at all.

    Returns:
        The last fifth (m, D), and ``decode(encode(.))`` of it.
    """
    groups = len(weights) // group
    # A codec takes two networks.
    cut = group * max(1, groups * 4 // 5, 3 - min(group, 2))
    codec, unseen = fit(weights[:cut]), weights[cut:]
    return unseen, codec.decode(codec.encode(unseen))


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
