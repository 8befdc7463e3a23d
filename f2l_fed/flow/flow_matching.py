"""Conditional flow matching: regress the velocity on straight lines from source to data.

Reference:
    Lipman et al.: Flow matching for generative modeling, arXiv 2210.02747, equation 23 with
    σ_min = 0. Ho, Salimans: Classifier-free diffusion guidance, arXiv 2207.12598.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.codec.latent_shape import LatentShape
from f2l_fed.core.placement import CPU
from f2l_fed.flow.config import FlowConfig
from f2l_fed.flow.couplings.registry import COUPLINGS
from f2l_fed.flow.sources.registry import SOURCES
from f2l_fed.flow.sources.source import DiagonalNormal, Initialisations
from f2l_fed.flow.velocity_field import VelocityField
from f2l_fed.flow.velocity_regression import (
    RegressionBatch,
    VelocityTraining,
    fit_to_examples,
    seeded,
)

_PROBED = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowFit:
    """A fitted velocity field.

    Args:
        field: With the weights that were best on the validation records.
        loss: Its mean squared velocity error on them, per coordinate.
        normal_loss: That of the velocity which is exact for normal targets, where the field starts.
        step: Gradient step at which these weights were reached; 0 if none was better than that.
        speed: Root mean square of its velocity along the straight paths from source to records,
            relative to that of the paths themselves. Near 0 the field carries nothing; far above
            1 it blows up. Exact transport to normal targets from a source as wide has about 0.5.
        error: Standard error of ``normal_loss - loss`` over the validation sites.
    """

    field: VelocityField
    loss: float
    normal_loss: float
    step: int
    speed: float
    error: float

    @property
    def wins(self) -> bool:
        """Whether the field is better than a normal by more than two standard errors."""
        return self.normal_loss - self.loss > 2 * self.error


def fit_flow(
    targets: Tensor,
    expected: Tensor,
    spread: Tensor,
    shape: LatentShape,
    config: FlowConfig,
    rng: torch.Generator,
    *,
    group: int = 1,
    initial: Initialisations | None = None,
    training: VelocityTraining | None = None,
    device: torch.device = CPU,
) -> FlowFit:
    """Fits the field that carries the source to the targets.

    Args:
        targets: (n, k) float32, latents of trained networks.
        expected: (n, k) float32, what the prior predicts for each of them without the records
            of its site: the context, and the centre of the source "prior".
        spread: (k,) float32, width of that source.
        shape: Layout of a latent.
        config: See `FlowConfig`.
        rng: Draws everything random, the initial weights too.
        group: Consecutive records that belong to one site, and are in the validation set together.
        initial: Makes random initialisations; only the source "kaiming" needs it.
        training: Where the gradient steps run.
        device: What computes them; the field is on the CPU again at the end.

    Raises:
        ConfigError: If the source is "kaiming" and nothing makes initialisations.
    """
    source, couple = SOURCES[config.source], COUPLINGS[config.coupling]
    near = initial.normal if initial else None
    start = source.start(DiagonalNormal(expected, spread), near)
    size = {"width": config.width, "depth": config.depth}
    field = seeded(rng, lambda: VelocityField(shape, spread, config.source, initial=near, **size))
    field.to(device)

    def examples(picks: Tensor) -> RegressionBatch:
        context, end = expected[picks], targets[picks]
        centre = start.centre[picks] if source.follows_context else start.centre
        off = start.width * source.noise(len(picks), shape, rng, initial)
        t = torch.rand(len(picks), generator=rng)
        known = (torch.rand(len(picks), generator=rng) >= config.dropout).float()
        plan = couple(off, end - centre, context, known, batch=config.batch)
        begin = centre + off[plan]
        return RegressionBatch(t, torch.lerp(begin, end, t[:, None]), context, known, end - begin)

    course = fit_to_examples(
        field,
        examples,
        len(targets),
        config,
        rng,
        group=group,
        training=training,
        device=device,
    )
    field.to(CPU)
    return FlowFit(
        field=field,
        loss=course.best,
        normal_loss=course.first,
        step=course.step,
        speed=_speed(field, examples(torch.arange(min(len(targets), _PROBED)))),
        error=course.error,
    )


@torch.no_grad()
def _speed(field: VelocityField, path: RegressionBatch) -> float:
    velocity = field(path.t, path.x, path.context, path.known)
    way = float(path.velocity.norm())
    return float(velocity.norm()) / way if way else 1.0
