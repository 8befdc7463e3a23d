"""Heun's method, the explicit trapezoidal rule."""

from __future__ import annotations

from torch import Tensor

from f2l_fed.flow.solvers.solver import Solver, Velocity


def heun(v: Velocity, t: Tensor, x: Tensor, h: float) -> Tensor:
    """One step of order 2; two evaluations, the second at its end."""
    first = v(t, x)
    return x + h / 2 * (first + v(t + h, x + h * first))


HEUN = Solver(step=heun, evaluations=2)
