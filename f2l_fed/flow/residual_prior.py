"""A residual network on the linear prior: a nonlinear correction of its prediction.

Research only: no retraining uses it.

It corrects the prior's prediction in the codec's latent, begins at no correction, and keeps the
weights that are best for validation sites, so it is never far worse than the prior alone. It learns
from predictions that did not use the site's own records. It has the architecture of
the velocity field and with it the output symmetry.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.codec.codec import Codec
from f2l_fed.flow.config import FlowConfig
from f2l_fed.flow.film_network import FilmNetwork
from f2l_fed.flow.sources.noise import pooled_rms
from f2l_fed.flow.velocity_regression import RegressionBatch, TrainingCurve, fit_to_examples, seeded


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualCorrection:
    """A correction of predictions.

    Args:
        codec: Its latent space.
        network: Correction in units of ``spread``.
        spread: (k,) float32, root mean square of the predictions' errors.
        course: Course of the fit; at step 0 there is no correction.
    """

    codec: Codec
    network: FilmNetwork
    spread: Tensor
    course: TrainingCurve

    @torch.no_grad()
    def __call__(self, expected: Tensor) -> Tensor:
        """(n, D) predicted weights to (n, D) corrected ones."""
        context = self.codec.encode(expected)
        known = context.new_ones(1)
        found = self.network(0 * known, torch.zeros_like(context), context, known)
        return expected + self.codec.displacement(context, context + self.spread * found)


def fit_residual(
    weights: Tensor,
    expected: Tensor,
    codec: Codec,
    config: FlowConfig,
    rng: torch.Generator,
    *,
    group: int = 1,
) -> ResidualCorrection:
    """Fits the correction by least squares in the latent.

    Args:
        weights: (n, D) float32, the networks of the records.
        expected: (n, D) float32, what the prior predicts of each without the records of its site.
        codec: The latent space.
        config: Size and schedule; source and coupling are not used.
        rng: Draws initial weights, batches, and the validation sites.
        group: Consecutive records that belong to one site.
    """
    context = codec.encode(expected)
    errors = codec.encode(weights) - context
    spread = pooled_rms(errors, codec.shape)
    unit = errors / spread.clamp(min=1e-12)
    network = seeded(rng, lambda: FilmNetwork(codec.shape, width=config.width, depth=config.depth))

    def examples(picks: Tensor) -> RegressionBatch:
        some = context[picks]
        ones = some.new_ones(len(some))
        return RegressionBatch(0 * ones, torch.zeros_like(some), some, ones, unit[picks])

    course = fit_to_examples(network, examples, len(unit), config, rng, group=group)
    return ResidualCorrection(codec=codec, network=network, spread=spread, course=course)
