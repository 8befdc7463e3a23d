"""Euler's method."""

from __future__ import annotations

from torch import Tensor

from f2l_fed.flow.solvers.solver import Solver, Velocity


def euler(v: Velocity, t: Tensor, x: Tensor, h: float) -> Tensor:
    """One step of order 1; one evaluation."""
    return x + h * v(t, x)


EULER = Solver(step=euler, evaluations=1)
