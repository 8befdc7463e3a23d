"""Models on latents: flow matching, its rectification, and diffusion for comparison."""

from typing import TYPE_CHECKING

from f2l_fed.core.lazy_exports import lazy_exports

__all__ = [
    "COUPLINGS",
    "SAMPLERS",
    "SOLVERS",
    "SOURCES",
    "Denoiser",
    "DiagonalNormal",
    "DiffusionFit",
    "FlowConfig",
    "FlowFit",
    "Initialisations",
    "ReflowFit",
    "VelocityField",
    "VelocityTraining",
    "begin",
    "draw",
    "fit_diffusion",
    "fit_flow",
    "guided",
    "pooled_rms",
    "sample_diffusion",
    "solve",
]

if TYPE_CHECKING:
    from f2l_fed.flow.config import FlowConfig
    from f2l_fed.flow.couplings.registry import COUPLINGS
    from f2l_fed.flow.diffusion import (
        SAMPLERS,
        Denoiser,
        DiffusionFit,
        fit_diffusion,
        sample_diffusion,
    )
    from f2l_fed.flow.film_network import guided
    from f2l_fed.flow.flow_matching import FlowFit, fit_flow
    from f2l_fed.flow.reflow import ReflowFit
    from f2l_fed.flow.solvers.registry import SOLVERS
    from f2l_fed.flow.solvers.solve import solve
    from f2l_fed.flow.sources.draw import begin, draw
    from f2l_fed.flow.sources.noise import pooled_rms
    from f2l_fed.flow.sources.registry import SOURCES
    from f2l_fed.flow.sources.source import DiagonalNormal, Initialisations
    from f2l_fed.flow.velocity_field import VelocityField
    from f2l_fed.flow.velocity_regression import VelocityTraining
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "f2l_fed.flow.config": ["FlowConfig"],
            "f2l_fed.flow.couplings.registry": ["COUPLINGS"],
            "f2l_fed.flow.diffusion": [
                "SAMPLERS",
                "Denoiser",
                "DiffusionFit",
                "fit_diffusion",
                "sample_diffusion",
            ],
            "f2l_fed.flow.film_network": ["guided"],
            "f2l_fed.flow.flow_matching": ["FlowFit", "fit_flow"],
            "f2l_fed.flow.reflow": ["ReflowFit"],
            "f2l_fed.flow.solvers.registry": ["SOLVERS"],
            "f2l_fed.flow.solvers.solve": ["solve"],
            "f2l_fed.flow.sources.draw": ["begin", "draw"],
            "f2l_fed.flow.sources.noise": ["pooled_rms"],
            "f2l_fed.flow.sources.registry": ["SOURCES"],
            "f2l_fed.flow.sources.source": ["Initialisations", "DiagonalNormal"],
            "f2l_fed.flow.velocity_field": ["VelocityField"],
            "f2l_fed.flow.velocity_regression": ["VelocityTraining"],
        },
    )
