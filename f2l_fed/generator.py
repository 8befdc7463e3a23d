"""The generator: prior, codec and flow as one value that makes networks from contexts."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from f2l_fed.aggregate import AGGREGATORS, aggregate
from f2l_fed.codec import PcaCodec, fit_pca
from f2l_fed.flow import SOLVERS, FlowConfig, FlowFit, VelocityField, draw, fit_flow, solve
from f2l_fed.prior import Prior, fit_prior
from f2l_fed.rules import choice, positive, require
from f2l_fed.symmetry import OutputSymmetry

_NARROWEST = 1e-6
"""Smallest width of the source, where the prior's held-out errors vanish."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecConfig:
    """Size of the latent space.

    Args:
        common: Largest number of components of the weights that all outputs share.
        rows: Largest number of components of one output's weights.
    """

    common: int = 64
    rows: int = 32

    def __post_init__(self) -> None:
        positive(self, "common", "rows")


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateConfig:
    """How all networks become the one that every site is offered.

    Args:
        rule: A key of `f2l_fed.aggregate.AGGREGATORS`.
        byzantine: Number of networks that may be lies.
    """

    rule: str = "mean"
    byzantine: int = 0

    def __post_init__(self) -> None:
        choice(self, "rule", AGGREGATORS)
        require(self.byzantine >= 0, self, "byzantine", ">= 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleConfig:
    """How networks are drawn.

    Args:
        solver: "euler" or "midpoint".
        evaluations: Evaluations of the velocity field for one network.
        guidance: 1 follows the context as learned, above 1 exaggerates what was learned of it, 0
            withholds it from the learned part.
        temperature: Width of the source, relative to the one the flow was fitted with.
    """

    solver: str = "euler"
    evaluations: int = 4
    guidance: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        choice(self, "solver", SOLVERS)
        positive(self, "evaluations")
        require(self.guidance >= 0, self, "guidance", ">= 0")
        require(self.temperature >= 0, self, "temperature", ">= 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorConfig:
    """Everything that decides what a retraining makes of a zoo."""

    aggregate: AggregateConfig = field(default_factory=AggregateConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)


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
    """

    prior: Prior
    codec: PcaCodec
    velocity: VelocityField
    spread: Tensor
    mean: Tensor
    config: GeneratorConfig

    def expect(self, contexts: Tensor) -> Tensor:
        """(n, D) probe updates to (n, D) expected weights."""
        symmetry = self.codec.symmetry
        return symmetry.join(self.prior(symmetry.split(contexts)))

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
        config = config or self.config.sample
        context = self.codec.encode(expected)
        known, unknown = torch.ones(len(context)), torch.zeros(len(context))
        start = draw(
            self.config.flow.source,
            context,
            self.spread,
            self.codec.shape,
            rng,
            temperature=config.temperature,
        )

        def velocity(t: Tensor, x: Tensor) -> Tensor:
            guided: Tensor = self.velocity(t, x, context, known)
            if config.guidance != 1:
                free = self.velocity(t, x, context, unknown)
                guided = free + config.guidance * (guided - free)
            return guided

        end = solve(velocity, start, solver=config.solver, evaluations=config.evaluations)
        return expected + self.codec.decode(end) - self.codec.decode(context)


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorFit:
    """A fitted generator and what its fit says about it.

    Args:
        generator: The generator.
        held_out: (n, D) float32, expected weights of each record's site without that record.
        drawn: (n, D) float32, one network drawn around each of these.
        round_trip: Share of the weights' variance that decode(encode(.)) keeps on records that
            the codec never saw.
        flow: How the velocity field's fit went.
    """

    generator: Generator
    held_out: Tensor
    drawn: Tensor
    round_trip: float
    flow: FlowFit

    def figures(self) -> dict[str, float]:
        """The numbers a gate, an event or a report shows."""
        return {
            "round_trip": self.round_trip,
            "flow_loss": self.flow.loss,
            "flow_normal_loss": self.flow.normal_loss,
            "flow_step": float(self.flow.step),
        }


def fit_generator(
    contexts: Tensor,
    weights: Tensor,
    symmetry: OutputSymmetry,
    config: GeneratorConfig,
    rng: torch.Generator,
) -> GeneratorFit:
    """Fits prior, codec and flow on one record per site.

    Args:
        contexts: (n, D) float32, probe updates; n >= 4.
        weights: (n, D) float32, fine-tuned networks.
        symmetry: Coordinates of prior, codec and flow.
        config: Sizes and schedules.
        rng: Draws everything random.
    """
    prior = fit_prior(contexts, weights, symmetry)
    expected = symmetry.join(prior.held_out)
    codec = fit_pca(weights, symmetry, common=config.codec.common, rows=config.codec.rows)
    targets, centres = codec.encode(weights), codec.encode(expected)
    # One width per kind of coordinate: pooled over outputs, which are exchangeable.
    spread = _pooled_rms(targets - centres, codec)
    flow = fit_flow(targets, centres, spread, codec.shape, config.flow, rng)
    generator = Generator(
        prior=prior.prior,
        codec=codec,
        velocity=flow.field,
        spread=spread,
        mean=aggregate(
            config.aggregate.rule,
            weights,
            torch.ones(len(weights)),
            byzantine=config.aggregate.byzantine,
        ),
        config=config,
    )
    return GeneratorFit(
        generator=generator,
        held_out=expected,
        drawn=generator.sample(expected, rng),
        round_trip=_held_out_round_trip(weights, symmetry, config.codec),
        flow=flow,
    )


def _pooled_rms(errors: Tensor, codec: PcaCodec) -> Tensor:
    parts = codec.shape.split(errors)
    common = parts.common.square().mean(0).sqrt()
    rows = parts.rows.square().mean((0, 1)).sqrt() if codec.shape.classes else parts.rows[0, 0:0]
    pooled = torch.cat([common, rows.reshape(-1).repeat(codec.shape.classes)])
    return pooled.clamp(min=_NARROWEST)


def _held_out_round_trip(weights: Tensor, symmetry: OutputSymmetry, config: CodecConfig) -> float:
    cut = max(2, len(weights) * 4 // 5)
    seen, unseen = weights[:cut], weights[cut:]
    codec = fit_pca(seen, symmetry, common=config.common, rows=config.rows)
    lost = (codec.decode(codec.encode(unseen)) - unseen).square().sum()
    return 1 - float(lost / (unseen - seen.mean(0)).square().sum().clamp(min=1e-30))
