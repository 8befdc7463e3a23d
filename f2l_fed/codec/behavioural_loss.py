"""The behaviour of networks on synthetic inputs, and the divergence between two of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from f2l_fed.targets.layout import layer_numbers
from f2l_fed.targets.synthetic_inputs import synthetic_inputs
from f2l_fed.targets.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """The behaviour of the vectors that a codec encodes: their layers and their predictions.

    Args:
        layers: (D,) int64, number of each weight's layer, ascending.
        predict: (n, D) float32 weights and (m, *input_shape) inputs to (n, m, K) logits;
            differentiable in the weights.
        draw: A number of inputs and a generator to as many inputs.
    """

    layers: Tensor
    predict: Callable[[Tensor, Tensor], Tensor]
    draw: Callable[[int, torch.Generator], Tensor]

    @classmethod
    def of(cls, target: Target) -> Behaviour:
        """The behaviour of a target's weights, on synthetic inputs."""
        return cls(
            layers=layer_numbers(target.layout),
            predict=torch.func.vmap(target.logits, in_dims=(0, None)),
            draw=partial(synthetic_inputs, target.input_shape),
        )

    def through(self, decode: Callable[[Tensor], Tensor], layers: Tensor) -> Behaviour:
        """The behaviour of vectors that ``decode`` carries to weights, in layers of their own."""
        return replace(
            self, layers=layers, predict=lambda vectors, x: self.predict(decode(vectors), x)
        )


def divergence(logits: Tensor, others: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence of some predictions from others, nats; (…, K) each."""
    log_p, log_q = logits.log_softmax(-1), others.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1).mean()
