"""Latent diffusion on the same latents, contexts and network, for comparison with the flow.

Research only: no retraining uses it.

It has every advantage that the flow has. What diffuses is the residual from the expected latent
in units of the prior's own error, so that the noise and, for normal targets, the data are both
N(0, I); the network predicts the velocity along the cosine schedule, which is then zero, and it
starts at zero. An untrained model therefore is the normal around the prior, exactly, and training
has nothing to learn but the rest, by the same steps and with the same early stopping.

Time runs as in the flow: noise at t = 0, data at t = 1, with the state cos(φ) residual +
sin(φ) noise at the angle φ = (1 - t) π/2.

Reference:
    Nichol, Dhariwal: Improved denoising diffusion, arXiv 2102.09672, equation 17 without offset,
    which the velocity does not need. Salimans, Ho: Progressive distillation, arXiv 2202.00512,
    appendix D. Ho et al.: DDPM, arXiv 2006.11239. Song et al.: DDIM, arXiv 2010.02502.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi, sin, sqrt

import torch
from torch import Tensor

from f2l_fed.codec.latent_shape import LatentShape
from f2l_fed.errors import ConfigError
from f2l_fed.flow.config import FlowConfig
from f2l_fed.flow.film_network import FilmNetwork, guided
from f2l_fed.flow.sources.noise import pooled_rms, white_noise
from f2l_fed.flow.velocity_regression import RegressionBatch, fit_to_examples, seeded


class Denoiser(FilmNetwork):
    """cos(φ) noise - sin(φ) residual, from time, state and context.

    Args:
        shape: Layout of the latents.
        spread: (k,) float32, root mean square of the targets around the expected latents.
        width: Hidden units of the common stream.
        depth: Number of blocks in each stream.
    """

    spread: Tensor

    def __init__(self, shape: LatentShape, spread: Tensor, *, width: int, depth: int) -> None:
        super().__init__(shape, width=width, depth=depth)
        self.register_buffer("spread", spread)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionFit:
    """A fitted diffusion model.

    Args:
        model: With the weights that were best on the validation records.
        loss: Its mean squared velocity error on them, per coordinate.
        normal_loss: That of the normal around the expected latents, where the model starts.
        step: Gradient step at which these weights were reached; 0 if none was better than that.
    """

    model: Denoiser
    loss: float
    normal_loss: float
    step: int


def fit_diffusion(
    targets: Tensor,
    expected: Tensor,
    shape: LatentShape,
    config: FlowConfig,
    rng: torch.Generator,
    *,
    group: int = 1,
) -> DiffusionFit:
    """Fits a diffusion model as `fit_flow` fits a flow.

    Args:
        targets: (n, k) float32, latents of trained networks.
        expected: (n, k) float32, what the prior predicts for each of them without the records
            of its site; zeros for a model of the targets alone.
        shape: Layout of a latent.
        config: Of the flow it is compared with; source and coupling mean nothing here.
        rng: Draws everything random, the initial weights too.
        group: Consecutive records that belong to one site, and are in the validation set together.
    """
    spread = pooled_rms(targets - expected, shape)
    residuals = (targets - expected) / spread
    model = seeded(rng, lambda: Denoiser(shape, spread, width=config.width, depth=config.depth))

    def examples(picks: Tensor) -> RegressionBatch:
        clean, noise = residuals[picks], white_noise(len(picks), shape, rng)
        t = torch.rand(len(picks), generator=rng)
        known = (torch.rand(len(picks), generator=rng) >= config.dropout).float()
        angle = (1 - t[:, None]) * pi / 2
        state = angle.cos() * clean + angle.sin() * noise
        return RegressionBatch(
            t, state, expected[picks], known, angle.cos() * noise - angle.sin() * clean
        )

    course = fit_to_examples(model, examples, len(targets), config, rng, group=group)
    return DiffusionFit(model=model, loss=course.best, normal_loss=course.first, step=course.step)


Denoise = Callable[[Tensor, Tensor, float, float, Callable[[], Tensor]], Tensor]
"""From state, velocity, angle, next angle and a source of noise to the next state."""


def ddim(x: Tensor, v: Tensor, angle: float, after: float, _: Callable[[], Tensor]) -> Tensor:
    """The deterministic step: along the schedule, states turn by the difference of the angles."""
    return cos(angle - after) * x - sin(angle - after) * v


def ddpm(x: Tensor, v: Tensor, angle: float, after: float, noise: Callable[[], Tensor]) -> Tensor:
    """The ancestral step: a draw from what state and predicted residual say of the next state."""
    clean = cos(angle) * x - sin(angle) * v
    kept = cos(angle) / cos(after)
    added = sin(angle) ** 2 - (kept * sin(after)) ** 2
    mean = (kept * sin(after) ** 2 * x + cos(after) * added * clean) / sin(angle) ** 2
    return mean + sqrt(added) * sin(after) / sin(angle) * noise()


SAMPLERS: dict[str, Denoise] = {"ddim": ddim, "ddpm": ddpm}


@torch.no_grad()
def sample_diffusion(
    model: Denoiser,
    expected: Tensor,
    shape: LatentShape,
    rng: torch.Generator,
    *,
    sampler: str = "ddim",
    evaluations: int = 50,
    guidance: float = 1.0,
    temperature: float = 1.0,
) -> Tensor:
    """Draws one latent for each row of ``expected``.

    Args:
        model: From `fit_diffusion`.
        expected: (n, k) float32, the prior's predictions.
        shape: Layout of the latents.
        rng: Draws the noise.
        sampler: A key of `SAMPLERS`.
        evaluations: Evaluations of the model for one latent.
        guidance: As in `guided`.
        temperature: Factor on all noise.

    Returns:
        (n, k) float32.
    """
    if sampler not in SAMPLERS:
        raise ConfigError(
            "unknown sampler",
            where="sampler",
            expected="one of " + ", ".join(sorted(SAMPLERS)),
            got=repr(sampler),
        )

    def noise() -> Tensor:
        return temperature * white_noise(len(expected), shape, rng)

    velocity, x = guided(model, expected, guidance=guidance), noise()
    for index in range(evaluations):
        angle, after = ((1 - step / evaluations) * pi / 2 for step in (index, index + 1))
        v = velocity(torch.full((1,), index / evaluations), x)
        x = SAMPLERS[sampler](x, v, angle, after, noise)
    return expected + model.spread * x
