"""Fixed-grid solvers of dx/dt = v(t, x) from t = 0 to t = 1."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""From times (n,) or (1,) and states (n, k) to (n, k)."""
Step = Callable[[Velocity, Tensor, Tensor, float], Tensor]


def euler(v: Velocity, t: Tensor, x: Tensor, h: float) -> Tensor:
    """One step of order 1; one evaluation."""
    return x + h * v(t, x)


def midpoint(v: Velocity, t: Tensor, x: Tensor, h: float) -> Tensor:
    """One step of order 2; two evaluations."""
    return x + h * v(t + h / 2, x + h / 2 * v(t, x))


def heun(v: Velocity, t: Tensor, x: Tensor, h: float) -> Tensor:
    """One step of order 2, the explicit trapezoid; two evaluations, the second at its end."""
    first = v(t, x)
    return x + h / 2 * (first + v(t + h, x + h * first))


SOLVERS: dict[str, tuple[Step, int]] = {
    "euler": (euler, 1),
    "heun": (heun, 2),
    "midpoint": (midpoint, 2),
}
"""Each solver's step and the evaluations it takes."""


def solve(v: Velocity, x: Tensor, *, solver: str, evaluations: int) -> Tensor:
    """Transports x along the velocity.

    Args:
        v: One time (1,) and (n, k) states to (n, k) velocities.
        x: (n, k) float32, states at t = 0.
        solver: A key of `SOLVERS`.
        evaluations: Number of velocity evaluations; a multiple of what one step takes. 0 leaves x
            where it is.

    Returns:
        (n, k) float32, states at t = 1.

    >>> ones = torch.ones(1, 1)
    >>> round(float(solve(lambda t, x: x, ones, solver="midpoint", evaluations=200)), 3)
    2.718
    """
    step, cost = SOLVERS[solver]
    steps = max(1, evaluations // cost) if evaluations else 0
    for index in range(steps):
        x = step(v, torch.full((1,), index / steps), x, 1 / steps)
    return x
