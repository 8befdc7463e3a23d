"""A multilayer perceptron, the target for vectors."""

from __future__ import annotations

from math import prod

from torch import nn


def mlp(input_shape: tuple[int, ...], classes: int, hidden: int = 32) -> nn.Module:
    """One hidden ReLU layer; for vectors and for small images."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(prod(input_shape), hidden), nn.ReLU(), nn.Linear(hidden, classes)
    )
