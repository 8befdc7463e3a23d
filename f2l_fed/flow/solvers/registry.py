"""The registry of solvers; another one takes a file with a `Solver` and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from f2l_fed.core.lazy_registry import LazyRegistry

if TYPE_CHECKING:
    from f2l_fed.flow.solvers.solver import Solver

SOLVERS: Mapping[str, Solver] = LazyRegistry(
    {
        "euler": "f2l_fed.flow.solvers.euler:EULER",
        "heun": "f2l_fed.flow.solvers.heun:HEUN",
        "midpoint": "f2l_fed.flow.solvers.midpoint:MIDPOINT",
    }
)
