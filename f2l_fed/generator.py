"""The generator: prior, codec and flow as one value that makes networks from contexts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from f2l_fed.aggregate import AGGREGATORS, aggregate
from f2l_fed.codec import CODECS, Codec, agreement, synthetic_inputs, unseen_copies
from f2l_fed.codec.latent import LatentShape
from f2l_fed.flow import (
    SOLVERS,
    SOURCES,
    FlowConfig,
    FlowFit,
    VelocityField,
    begin,
    fit_flow,
    guided,
    pooled_rms,
    solve,
)
from f2l_fed.prior import Prior, PriorConfig, PriorFit, fit_prior, refine_prior
from f2l_fed.rules import choice, positive, require
from f2l_fed.symmetry import OutputSymmetry
from f2l_fed.targets import Target

_COMPARED = 32
_INPUTS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecConfig:
    """The latent space.

    Args:
        kind: A key of `f2l_fed.codec.CODECS`.
        common: Largest number of components of the weights that all outputs share.
        rows: Largest number of components of one output's weights.
    """

    kind: str = "pca"
    common: int = 64
    rows: int = 32

    def __post_init__(self) -> None:
        choice(self, "kind", CODECS)
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
        solver: "euler", "midpoint" or "heun".
        evaluations: Evaluations of the velocity field for one network; 0 takes the source as it
            is.
        guidance: 1 follows the context as learned, above 1 exaggerates what was learned of it, 0
            withholds it from the learned part.
        temperature: Width of the source, relative to the one the flow was fitted with.
    """

    solver: str = "midpoint"
    evaluations: int = 4
    guidance: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        choice(self, "solver", SOLVERS)
        require(self.evaluations >= 0, self, "evaluations", ">= 0")
        require(self.guidance >= 0, self, "guidance", ">= 0")
        require(self.temperature >= 0, self, "temperature", ">= 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorConfig:
    """Everything that decides what a retraining makes of a zoo."""

    aggregate: AggregateConfig = field(default_factory=AggregateConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
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
    codec: Codec
    velocity: VelocityField
    spread: Tensor
    mean: Tensor
    config: GeneratorConfig

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


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTrip:
    """What decode(encode(.)) keeps of networks that the codec has not seen.

    Args:
        variance: Share of their variance around the seen ones' mean.
        agreement: Share of inputs, made without data, on which a network and its copy predict the
            same class.
    """

    variance: float
    agreement: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorFit:
    """A fitted generator and what its fit says about it.

    Args:
        generator: The generator.
        held_out: (n, E, D) float32, what is expected of each record without those of its site.
        drawn: (n, D) float32, one network drawn around the first of each site.
        round_trip: What a codec keeps of networks that it never saw.
        flow: How the velocity field's fit went.
    """

    generator: Generator
    held_out: Tensor
    drawn: Tensor
    round_trip: RoundTrip
    flow: FlowFit

    def figures(self) -> dict[str, float]:
        """The numbers a gate, an event or a report shows."""
        return {
            "round_trip": self.round_trip.variance,
            "round_trip_agreement": self.round_trip.agreement,
            "flow_loss": self.flow.loss,
            "flow_normal_loss": self.flow.normal_loss,
            "flow_step": float(self.flow.step),
            "flow_speed": self.flow.speed,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What an earlier prior with the same anchor expected of the records.

    Args:
        prior: That prior.
        expected: (n, E, D) float32, without the records of each one's own site.
    """

    prior: Prior
    expected: Tensor


class FitField(Protocol):
    """`f2l_fed.flow.fit_flow`, wherever it runs."""

    def __call__(
        self,
        targets: Tensor,
        expected: Tensor,
        spread: Tensor,
        shape: LatentShape,
        config: FlowConfig,
        rng: torch.Generator,
        *,
        group: int = 1,
    ) -> FlowFit:
        """Fits the field, and leaves ``rng`` where `fit_flow` would."""


def fit_generator(
    contexts: Tensor,
    weights: Tensor,
    target: Target,
    symmetry: OutputSymmetry,
    config: GeneratorConfig,
    rng: torch.Generator,
    *,
    anchor: Tensor,
    before: Expectation | None = None,
    fit_field: FitField = fit_flow,
) -> GeneratorFit:
    """Fits prior, codec and flow on the records of all sites.

    Args:
        contexts: (n, E, D) float32, E probe updates of each of n >= 2 sites.
        weights: (n, E, D) float32, the fine-tuned network of each.
        target: What they are networks of.
        symmetry: Coordinates of prior, codec and flow.
        config: Sizes and schedules.
        rng: Draws everything random.
        anchor: (D,) float32, where the probes start.
        before: Refine this instead of fitting the prior anew.
        fit_field: `f2l_fed.flow.fit_flow`, or the same elsewhere.
    """
    prior = _fit_prior(contexts, weights, symmetry, config, anchor, before)
    episodes = contexts.shape[1]
    weights, expected = weights.flatten(0, 1), prior.held_out.flatten(0, 1)

    def fit_codec(some: Tensor) -> Codec:
        size = {"common": config.codec.common, "rows": config.codec.rows}
        return CODECS[config.codec.kind].fit(some, symmetry, target, rng, **size)

    codec = fit_codec(weights)
    targets, centres = codec.encode(weights), codec.encode(expected)
    spread = pooled_rms(targets - centres, codec.shape)
    flow = fit_field(targets, centres, spread, codec.shape, config.flow, rng, group=episodes)
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
        held_out=prior.held_out,
        drawn=generator.sample(expected[::episodes], rng),
        round_trip=_round_trip(target, fit_codec, weights, episodes, rng),
        flow=flow,
    )


def _fit_prior(
    contexts: Tensor,
    weights: Tensor,
    symmetry: OutputSymmetry,
    config: GeneratorConfig,
    anchor: Tensor,
    before: Expectation | None,
) -> PriorFit:
    if before is None:
        return fit_prior(contexts, weights, symmetry, anchor)
    return refine_prior(before.prior, contexts, before.expected, weights, config.prior)


def _round_trip(
    target: Target,
    fit_codec: Callable[[Tensor], Codec],
    weights: Tensor,
    episodes: int,
    rng: torch.Generator,
) -> RoundTrip:
    unseen, copies = unseen_copies(fit_codec, weights, group=episodes)
    seen = weights[: len(weights) - len(unseen)]
    lost = (copies - unseen).square().sum()
    few = slice(0, episodes * _COMPARED, episodes)
    return RoundTrip(
        variance=1 - float(lost / (unseen - seen.mean(0)).square().sum().clamp(min=1e-30)),
        agreement=agreement(
            target, unseen[few], copies[few], synthetic_inputs(target.input_shape, _INPUTS, rng)
        ),
    )
