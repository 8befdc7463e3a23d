"""Logistic heads: a convex classifier on a body's features, solved to the end.

One function serves a site's context (a head on few examples, towards zero), the head on all of
its examples, and the site's own head, which is pulled towards the generated one: the maximum a
posteriori under a normal prior around that. Newton's method needs no learning rate and ends at the
same bits; its linear systems are solved by conjugate gradients, so that memory grows with the
examples and classes and not with their squares. Heads of equally many examples are solved together:
for small ones a step costs more than its arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

_NEWTON_STEPS = 50
_TOLERANCE = 1e-5
"""Largest component of the gradient at the end. Heads are then within a thousandth of their length
of the minimum; other examples of the same classes move them a hundred times as far."""

_SMALLEST_RATE = 1e-6
"""Smallest share of a Newton step."""

_TOGETHER = 1 << 20
"""Most numbers of the features of heads that are solved together, 8 MiB."""


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
    start = None if towards is None else rows(towards, classes, bias)[None]
    head: Tensor = _heads(features[None], labels[None], classes, strength, start, bias)[0]
    return head


def logistic_heads(
    features: Tensor, labels: Tensor, classes: int, *, strength: float, bias: bool = True
) -> Tensor:
    """`logistic_head` towards zero for each of some sets of equally many examples.

    Args:
        features: (E, n, F) float32.
        labels: (E, n) int64, below K.
        classes: K.
        strength: Of the penalty, positive.
        bias: Whether there are biases.

    Returns:
        (E, K * F + K) float32.
    """
    count = max(1, _TOGETHER // features[0].numel())
    parts = zip(features.split(count), labels.split(count), strict=True)
    return torch.cat([_heads(x, y, classes, strength, None, bias) for x, y in parts])


def rows(head: Tensor, classes: int, bias: bool = True) -> Tensor:
    """A head as one row for each class, the bias last: (K * F + K,) to (K, F + 1)."""
    if not bias:
        return head.view(classes, -1)
    weight, biases = head[:-classes].view(classes, -1), head[-classes:]
    return torch.cat([weight, biases[:, None]], dim=1)


def flat(matrix: Tensor, bias: bool = True) -> Tensor:
    """The inverse of `rows`; of more than one head, (…, K, F + 1) to (…, K * F + K)."""
    if not bias:
        return matrix.flatten(-2)
    return torch.cat([matrix[..., :-1].flatten(-2), matrix[..., -1]], dim=-1)


def with_ones(features: Tensor) -> Tensor:
    """(…, F) features with a last column of ones for the bias."""
    return functional.pad(features, (0, 1), value=1.0)


def _heads(
    features: Tensor,
    labels: Tensor,
    classes: int,
    strength: float,
    towards: Tensor | None,
    bias: bool,
) -> Tensor:
    """(E, K * F + K) float32, the heads on (E, n, F), towards (E, K, F + 1) or zero."""
    z = with_ones(features.double()) if bias else features.double()
    start = z.new_zeros(len(z), classes, z.shape[2]) if towards is None else towards.double()
    offset = start @ z.mT
    # Where there are fewer examples than features, the solution lies in the examples' span.
    basis = None
    if z.shape[1] < z.shape[2]:
        basis, triangle = torch.linalg.qr(z.mT)
        z = triangle.mT.contiguous()
    change = _solve(z, offset, labels, strength)
    if basis is not None:
        change = change @ basis.mT
    return flat(start + change, bias).to(features.dtype)


def _solve(z: Tensor, offset: Tensor, labels: Tensor, strength: float) -> Tensor:
    """(E, K, p) float64, the minimising change of each head, NaN if the loss is not finite.

    The logits before the change, ``offset``, are (E, K, n).
    """
    n = z.shape[1]
    hot = functional.one_hot(labels, offset.shape[1]).mT.double()

    def objective(change: Tensor, logits: Tensor) -> Tensor:
        loss = functional.cross_entropy(logits, labels, reduction="none").mean(1)
        return loss + strength / 2 * change.square().sum((1, 2))

    # Classes come before examples: products of few rows are twice as fast as those of few columns.
    change, logits = z.new_zeros(len(z), offset.shape[1], z.shape[2]), offset
    value = objective(change, logits)
    for _ in range(_NEWTON_STEPS):
        p = logits.softmax(1)
        gradient = (p - hot) @ z / n + strength * change
        size = gradient.abs().amax((1, 2), keepdim=True)
        if not bool((size >= _TOLERANCE).any()):
            break

        def curvature(v: Tensor, p: Tensor = p) -> Tensor:
            moved = p * (v @ z.mT)
            return (moved - p * moved.sum(1, keepdim=True)) @ z / n + strength * v

        # Heads that are solved stay where they are.
        right = torch.where(size >= _TOLERANCE, -gradient, 0.0)
        step = _conjugate_gradients(curvature, right, size.sqrt().clamp(max=0.1))
        turn, slope, rate = step @ z.mT, (gradient * step).sum((1, 2)), torch.ones_like(value)
        while True:
            along = rate[:, None, None]
            moved, seen = change + along * step, logits + along * turn
            trial = objective(moved, seen)
            uphill = trial > value + 1e-4 * rate * slope
            if not bool(uphill.any()):
                break
            rate = torch.where(uphill, rate / 2, rate)
            # As exact as the numbers are.
            rate[rate < _SMALLEST_RATE] = 0
        if not bool(rate.any()):
            break
        change, logits, value = moved, seen, trial
    return torch.where(value.isfinite()[:, None, None], change, torch.nan)


def _conjugate_gradients(
    product: Callable[[Tensor], Tensor], right: Tensor, tolerance: Tensor
) -> Tensor:
    """x with product(x) = right for each head, up to a share of its length; (E, K, p) each."""
    x, residual, direction = torch.zeros_like(right), right, right
    square = right.square().sum((1, 2), keepdim=True)
    goal = tolerance.square() * square
    for _ in range(right[0].numel()):
        going = square > goal
        if not bool(going.any()):
            break
        image = product(direction)
        along = (direction * image).sum((1, 2), keepdim=True)
        rate = torch.where(going, square / along, 0.0)
        x, residual = x + rate * direction, residual - rate * image
        before, square = square, residual.square().sum((1, 2), keepdim=True)
        direction = residual + torch.where(going, square / before, 0.0) * direction
    return x
