"""How much of what networks do survives a codec that never saw them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.codec.codec import Codec
from f2l_fed.local_training.finetune import loss_and_accuracy
from f2l_fed.targets import Target

Fit = Callable[[Tensor], Codec]
"""(n, D) weights to a codec."""


def unseen_copies(fit: Fit, weights: Tensor, *, group: int = 1) -> tuple[Tensor, Tensor]:
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


def functional_round_trip(target: Target, fit: Fit, weights: Tensor, inputs: Tensor) -> float:
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


_WORTH = 0.95
"""Weights are changed only if a codec then loses less than this share of what it lost before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """What canonical weights are worth to a codec.

    The loss is relative to the squared norm of the weights, not to their variance: an order of
    the units that brings the networks closer together lowers their variance as well, and would
    be punished for it; scales that spread them would be rewarded.

    Args:
        before: Share of the squared norm of unseen networks that the codec loses.
        after: The same with canonical weights.

    >>> Gain(before=0.5, after=0.3).helps, Gain(before=0.5, after=0.5).helps
    (True, False)
    """

    before: float
    after: float

    @property
    def helps(self) -> bool:
        """Whether they should be used."""
        return self.after < _WORTH * self.before


def held_out_gain(
    weights: Tensor, canonical: Callable[[Tensor], Tensor], fit: Callable[[Tensor], Codec]
) -> Gain:
    """Compares a codec's round trip on networks it never saw, with and without canonical weights.

    Args:
        weights: (n, D) float32, n >= 5; the codec is fitted on the first four fifths.
        canonical: Made with a reference that is none of the last fifth.
        fit: Fits a codec to (m, D) weights.
    """
    return Gain(before=_lost(weights, fit), after=_lost(canonical(weights), fit))


def _lost(weights: Tensor, fit: Callable[[Tensor], Codec]) -> float:
    unseen, copies = unseen_copies(fit, weights)
    return float((copies - unseen).square().sum() / unseen.square().sum().clamp(min=1e-30))
