"""Models on latents: flow matching, its rectification, and diffusion to compare it with."""

from f2l_fed.flow.config import FlowConfig
from f2l_fed.flow.couplings import COUPLINGS
from f2l_fed.flow.diffusion import SAMPLERS, Denoiser, DiffusionFit, fit_diffusion, sample_diffusion
from f2l_fed.flow.film_network import guided
from f2l_fed.flow.flow_matching import FlowFit, fit_flow
from f2l_fed.flow.reflow import ReflowFit, reflow
from f2l_fed.flow.solvers import SOLVERS, solve
from f2l_fed.flow.sources import SOURCES, Initial, Normal, begin, draw, pooled_rms
from f2l_fed.flow.velocity_field import VelocityField
from f2l_fed.flow.velocity_regression import VelocityTraining

__all__ = [
    "COUPLINGS",
    "SAMPLERS",
    "SOLVERS",
    "SOURCES",
    "Denoiser",
    "DiffusionFit",
    "FlowConfig",
    "FlowFit",
    "Initial",
    "Normal",
    "ReflowFit",
    "VelocityField",
    "VelocityTraining",
    "begin",
    "draw",
    "fit_diffusion",
    "fit_flow",
    "guided",
    "pooled_rms",
    "reflow",
    "sample_diffusion",
    "solve",
]
