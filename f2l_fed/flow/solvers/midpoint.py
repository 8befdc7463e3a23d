"""The explicit midpoint rule."""

from __future__ import annotations

from torch import Tensor

from f2l_fed.flow.solvers.solver import Solver, Velocity


def midpoint(v: Velocity, t: Tensor, x: Tensor, h: float) -> Tensor:
    """One step of order 2; two evaluations."""
    return x + h * v(t + h / 2, x + h / 2 * v(t, x))


MIDPOINT = Solver(step=midpoint, evaluations=2)
