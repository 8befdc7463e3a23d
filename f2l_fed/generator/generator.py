"""The generator: prior, codec and flow as one value that makes networks from contexts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from f2l_fed.codec import Codec
from f2l_fed.flow import SOURCES, VelocityField, begin, guided, solve
from f2l_fed.generator.config import GeneratorConfig, SampleConfig
from f2l_fed.prior.linear_prior import Prior


@dataclass(frozen=True, slots=True, kw_only=True)
class Bodies:
    """The bodies of a release, or the whole networks where all sites share one.

    Args:
        own: (B,) float32, the body that its heads belong to, or the shared network; sites get it.
        next: (B,) float32, the average of what the sites made of a body; they train it further,
            and make the heads of the next release on it. Of a shared network, where the sites'
            next passes and contexts start, ahead of it.
    """

    own: Tensor
    next: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Generator:
    """Makes networks for contexts.

    Args:
        prior: Expected weights, given the context.
        codec: Weights to latents and back.
        velocity: The flow's field.
        spread: (k,) float32, width of the source around the prior.
        mean: (D,) float32, aggregate of the networks it was fitted on.
        config: As fitted.
        bodies: The bodies that heads are generated on, or the shared networks; else None.
    """

    prior: Prior
    codec: Codec
    velocity: VelocityField
    spread: Tensor
    mean: Tensor
    config: GeneratorConfig
    bodies: Bodies | None = None

    def expect(self, contexts: Tensor) -> Tensor:
        """(n, D) probe updates to (n, D) expected weights."""
        return self.prior(contexts)

    @torch.no_grad()
    def sample(
        self, expected: Tensor, rng: torch.Generator, config: SampleConfig | None = None
    ) -> Tensor:
        """Draws one network for each row of expected weights.

        What the prior predicts outside the latent space is kept: the flow moves the latent only.

        Args:
            expected: (n, D) float32 from `expect`; repeat a row to draw several for one context.
            rng: Draws the source.
            config: Overrides the generator's own.

        Returns:
            (n, D) float32; the same bits for equal inputs on the same build.
        """
        return self.carry(expected, self.noise(len(expected), rng), config)

    def noise(self, count: int, rng: torch.Generator) -> Tensor:
        """(count, k) float32, what `sample` draws; the same generator state, the same noise."""
        return SOURCES[self.config.flow.source].noise(count, self.codec.shape, rng, None)

    def carry(self, expected: Tensor, noise: Tensor, config: SampleConfig | None = None) -> Tensor:
        """`sample` with (n, k) noise that is given; differentiable in all that it is made from."""
        config = config or self.config.sample
        context = self.codec.encode(expected)
        start = begin(
            self.config.flow.source, context, self.spread, noise, temperature=config.temperature
        )
        # A field that was fitted without any context knows nothing to be guided by.
        guidance = config.guidance if self.config.flow.dropout < 1 else 0.0
        end = solve(
            guided(self.velocity, context, guidance=guidance),
            start,
            solver=config.solver,
            evaluations=config.evaluations,
        )
        return expected + self.codec.displacement(context, end)
