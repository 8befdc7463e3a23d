"""The solution of dx/dt = v(t, x) from t = 0 to t = 1 on a fixed grid."""

from __future__ import annotations

import torch
from torch import Tensor

from f2l_fed.flow.solvers.registry import SOLVERS
from f2l_fed.flow.solvers.solver import Velocity


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
    chosen = SOLVERS[solver]
    steps = max(1, evaluations // chosen.evaluations) if evaluations else 0
    for index in range(steps):
        x = chosen.step(v, torch.full((1,), index / steps, device=x.device), x, 1 / steps)
    return x
