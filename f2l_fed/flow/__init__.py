"""Conditional flow matching on latents: velocity field, its fit, and fixed-grid solvers."""

from f2l_fed.flow.field import VelocityField
from f2l_fed.flow.fit import FlowConfig, FlowFit, fit_flow
from f2l_fed.flow.solve import SOLVERS, solve
from f2l_fed.flow.source import SOURCES, draw

__all__ = [
    "SOLVERS",
    "SOURCES",
    "FlowConfig",
    "FlowFit",
    "VelocityField",
    "draw",
    "fit_flow",
    "solve",
]
