"""The record under which a solver is registered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""From times (n,) or (1,) and states (n, k) to (n, k)."""

Step = Callable[[Velocity, Tensor, Tensor, float], Tensor]
"""From velocity, time (1,), states (n, k) and step length to the next states (n, k)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Solver:
    """A one-step solver of dx/dt = v(t, x).

    Args:
        step: Takes one step.
        evaluations: Evaluations of the velocity in one step.
    """

    step: Step
    evaluations: int
