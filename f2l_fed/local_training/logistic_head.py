"""Logistic heads: a convex classifier on a body's features, solved to the end.

One function serves a site's context (a head on few examples, towards zero), the head on all of
its examples, and the site's own head, which is pulled towards the generated one: the maximum a
posteriori under a normal prior around that. Newton's method needs no learning rate and ends at the
same bits; its linear systems are solved by conjugate gradients, so that memory grows with the
examples and classes and not with their squares.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

_NEWTON_STEPS = 50
_TOLERANCE = 1e-7
"""Largest component of the gradient at the end."""


def logistic_head(
    features: Tensor,
    labels: Tensor,
    classes: int,
    *,
    strength: float,
    towards: Tensor | None = None,
    bias: bool = True,
) -> Tensor:
    """The head h with the least mean cross-entropy + strength / 2 * |h - towards|².

    Args:
        features: (n, F) float32.
        labels: (n,) int64, below K.
        classes: K.
        strength: Of the penalty, positive; the bias is penalised like the weights.
        towards: (K * F + K,) float32, weight rows and then biases, as a linear layer's parameters;
            zero if None.
        bias: Whether there are biases; without them heads are (K * F,).

    Returns:
        (K * F + K,) float32.

    Reference:
        Nocedal, Wright: Numerical optimization, 2006, algorithm 7.1 (Newton-CG).

    >>> x = torch.tensor([[-1.0], [1.0]])
    >>> logistic_head(x, torch.tensor([0, 1]), 2, strength=0.1)[:2].sign().tolist()
    [-1.0, 1.0]
    """
    z = with_ones(features.double()) if bias else features.double()
    start = z.new_zeros(classes, z.shape[1]) if towards is None else rows(towards, classes, bias)
    offset = z @ start.double().T
    # Where there are fewer examples than features, the solution lies in the examples' span.
    basis = None
    if len(z) < z.shape[1]:
        basis, triangle = torch.linalg.qr(z.T)
        z = triangle.T
    change = _solve(z, offset, labels, strength)
    if basis is not None:
        change = change @ basis.T
    return flat((start.double() + change).to(features.dtype), bias)


def rows(head: Tensor, classes: int, bias: bool = True) -> Tensor:
    """A head as one row for each class, the bias last: (K * F + K,) to (K, F + 1)."""
    if not bias:
        return head.view(classes, -1)
    weight, biases = head[:-classes].view(classes, -1), head[-classes:]
    return torch.cat([weight, biases[:, None]], dim=1)


def flat(matrix: Tensor, bias: bool = True) -> Tensor:
    """The inverse of `rows`."""
    if not bias:
        return matrix.reshape(-1)
    return torch.cat([matrix[:, :-1].reshape(-1), matrix[:, -1]])


def with_ones(features: Tensor) -> Tensor:
    """(n, F) features with a last column of ones for the bias."""
    return torch.cat([features, features.new_ones(len(features), 1)], dim=1)


def _solve(z: Tensor, offset: Tensor, labels: Tensor, strength: float) -> Tensor:
    """(K, p) float64, the minimising change of the head."""
    n, hot = len(z), functional.one_hot(labels, offset.shape[1]).double()

    def objective(change: Tensor) -> float:
        loss = functional.cross_entropy(offset + z @ change.T, labels)
        return float(loss + strength / 2 * change.square().sum())

    change = z.new_zeros(offset.shape[1], z.shape[1])
    value = objective(change)
    for _ in range(_NEWTON_STEPS):
        p = (offset + z @ change.T).softmax(1)
        gradient = (p - hot).T @ z / n + strength * change
        size = float(gradient.abs().max())
        if size < _TOLERANCE:
            break

        def curvature(v: Tensor, p: Tensor = p) -> Tensor:
            moved = p * (z @ v.T)
            return (moved - p * moved.sum(1, keepdim=True)).T @ z / n + strength * v

        step = _conjugate_gradients(curvature, -gradient, min(0.1, size**0.5))
        slope, rate = float((gradient * step).sum()), 1.0
        while (trial := objective(change + rate * step)) > value + 1e-4 * rate * slope:
            rate /= 2
            if rate < 1e-6:
                # As exact as the numbers are.
                return change
        change, value = change + rate * step, trial
    return change


def _conjugate_gradients(
    product: Callable[[Tensor], Tensor], right: Tensor, tolerance: float
) -> Tensor:
    """x with product(x) = right, up to a share of its length."""
    x, residual = torch.zeros_like(right), right.clone()
    direction, square = residual.clone(), float(residual.square().sum())
    goal = tolerance**2 * square
    for _ in range(right.numel()):
        if square <= goal:
            break
        image = product(direction)
        rate = square / float((direction * image).sum())
        x, residual = x + rate * direction, residual - rate * image
        square, before = float(residual.square().sum()), square
        direction = residual + (square / before) * direction
    return x
