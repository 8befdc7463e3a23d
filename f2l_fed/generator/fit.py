"""The fit of a generator: prior, codec and flow on the records of all sites."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from f2l_fed.aggregate.registry import aggregate
from f2l_fed.codec.codec import Codec
from f2l_fed.codec.latent_shape import LatentShape
from f2l_fed.codec.registry import CODECS
from f2l_fed.codec.round_trip import RoundTrip, round_trip
from f2l_fed.core.dense_tensors import require_finite_rows
from f2l_fed.flow.config import FlowConfig
from f2l_fed.flow.flow_matching import FlowFit, fit_flow
from f2l_fed.flow.sources.noise import pooled_rms
from f2l_fed.flow.sources.registry import SOURCES
from f2l_fed.generator.config import GeneratorConfig
from f2l_fed.generator.generator import Fleet, Generator
from f2l_fed.matrices.blocks import blocks
from f2l_fed.matrices.workspace import IN_MEMORY, Workspace
from f2l_fed.prior.families import Families, find_families, taken
from f2l_fed.prior.linear_prior import Expectation, PriorFit, fit_prior, refine_prior, with_gate
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.targets.synthetic_inputs import synthetic_inputs
from f2l_fed.targets.target import Target

_COMPARED = 32
"""Networks that are compared with their copies."""

_DRAWN = 64
"""Networks that are drawn, of which the audit takes the spread."""

_IMAGINED = 4
"""Sites that a fit without any is made on, enough for every part of it."""

_INPUTS = 256
"""Synthetic inputs on which they are compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorFit:
    """A fitted generator and the results of its fit.

    Args:
        generator: The generator.
        held_out: (n, E, D) float32, prediction for each record without those of its site; of a
            mixed fleet, in the family of its network.
        drawn: (m, D) float32, networks drawn around the first of each site, or of some of many.
        round_trip: Fidelity of a codec for networks that it never saw.
        flow: The velocity field with the course of its fit; of a mixed fleet's largest family.
        families: The families of a mixed fleet; else None.
    """

    generator: Generator
    held_out: Tensor
    drawn: Tensor
    round_trip: RoundTrip
    flow: FlowFit
    families: Families | None = None

    @property
    def held_out_as_new(self) -> Tensor:
        """(n, E, D) float32, ``held_out`` without knowing the family of the network either."""
        return self.held_out if self.families is None else self.families.held_out

    def figures(self) -> dict[str, float]:
        """The figures of the fit for the gate, events and reports."""
        return {
            "round_trip": self.round_trip.variance,
            "round_trip_agreement": self.round_trip.agreement,
            "flow_loss": self.flow.loss,
            "flow_normal_loss": self.flow.normal_loss,
            "flow_step": float(self.flow.step),
            "flow_speed": self.flow.speed,
            **(
                {"families": float(families)}
                if (families := len(self.generator.members)) > 1
                else {}
            ),
        }

    def model(self) -> str:
        """The cheapest model that is as good as any, and why, in words for the release."""
        members, flow = self.generator.members, self.flow
        if self.generator.prior.symmetry.rows_alone:
            return "Prior: sites solve their heads with a pull towards it, and need no draws."
        many = f"{len(members)} families of networks, each with its own: " * (len(members) > 1)
        if not flow.step:
            settings = self.generator.config.flow
            look = min(settings.steps, settings.look * settings.check_every)
            return (
                f"{many}Prior and normal draws around it: within {look} steps no flow came below "
                f"their loss of {flow.normal_loss:.3g} on left-out sites, and it was left at that."
            )
        losses = (
            f"on left-out sites the flow's loss is {flow.loss:.3g} and that of normal draws "
            f"{flow.normal_loss:.3g}, ±{2 * flow.error:.2g} between them."
        )
        if self.generator.config.sample.evaluations:
            return f"{many}Prior and flow: {losses}"
        return f"{many}Prior and normal draws around it, for a flow is no better: {losses}"


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
    prior: PriorFit | None = None,
    fit_field: FitField = fit_flow,
    work: Workspace = IN_MEMORY,
) -> GeneratorFit:
    """Fits prior, codec and flow on the records of all sites, or on those of each family.

    Args:
        contexts: (n, E, D) float32, E probe updates of each of n >= 2 sites.
        weights: (n, E, D) float32, the fine-tuned network of each.
        target: The target of the networks.
        symmetry: Coordinates of prior, codec and flow.
        config: Sizes and schedules.
        rng: Draws everything random.
        anchor: (D,) float32, where the probes start.
        before: Refine this prior instead of fitting one from scratch; of no use to families.
        prior: The prior without a gate on these records, where it is known already, or of another
            kind: that around a shared network.
        fit_field: `f2l_fed.flow.fit_flow`, or the same elsewhere.
        work: Where what is as large as the records lies, and who works on parts of them.

    Raises:
        UsageError: If a tensor is of another kind or shape, or not finite.
    """
    require_finite_rows(2, anchor, contexts=contexts, weights=weights)
    if before is not None:
        prior = refine_prior(before.prior, contexts, before.expected, weights, config.prior, work)
    else:
        prior = prior or fit_prior(contexts, weights, symmetry, anchor, work=work)
        if config.prior.gate and symmetry.rows_alone:
            prior = with_gate(prior, contexts, weights)

    def fit_around(fit: PriorFit, some: Tensor) -> GeneratorFit:
        return _fit_around(fit, some, target, config, rng, fit_field, work)

    most = 1 if symmetry.rows_alone else config.prior.families
    found = find_families(contexts, weights, symmetry, anchor, prior, most=most, work=work)
    return (
        fit_around(prior, weights)
        if found is None
        else _fit_fleet(found, weights, fit_around, work)
    )


def _fit_fleet(
    found: Families,
    weights: Tensor,
    fit_around: Callable[[PriorFit, Tensor], GeneratorFit],
    work: Workspace,
) -> GeneratorFit:
    """A generator for each family, as one."""
    held_out = work.empty(*weights.shape)
    fits, of = [], [(found.labels == one).nonzero()[:, 0] for one in range(len(found.priors))]
    for prior, rows in zip(found.priors, of, strict=True):
        own = taken(weights, rows, work)
        fits.append(fit_around(prior, own))
        for place, row in enumerate(rows.tolist()):
            held_out[row] = fits[-1].held_out[place]
        work.free(own)
    # A field that is no better than a normal stands for one, so those of all may be used.
    config = max((fit.generator.config for fit in fits), key=lambda one: one.sample.evaluations)
    first, *others = (replace(fit.generator, config=config) for fit in fits)
    kept = [(fit.round_trip, len(rows) / len(weights)) for fit, rows in zip(fits, of, strict=True)]
    return GeneratorFit(
        generator=replace(first, fleet=Fleet(shares=found.shares, others=tuple(others))),
        held_out=held_out,
        drawn=torch.cat([fit.drawn for fit in fits]),
        round_trip=RoundTrip(
            variance=sum(share * trip.variance for trip, share in kept),
            agreement=sum(share * trip.agreement for trip, share in kept),
        ),
        flow=fits[0].flow,
        families=found,
    )


def _fit_around(
    prior: PriorFit,
    weights: Tensor,
    target: Target,
    config: GeneratorConfig,
    rng: torch.Generator,
    fit_field: FitField,
    work: Workspace,
) -> GeneratorFit:
    """Codec and flow of the (n, E, D) networks that a prior was fitted on."""
    symmetry, episodes = prior.prior.symmetry, weights.shape[1]
    weights, expected = weights.flatten(0, 1), prior.held_out.flatten(0, 1)

    def fit_codec(some: Tensor) -> Codec:
        common, rows = config.codec.common, config.codec.rows
        return CODECS[config.codec.kind].fit(
            some, symmetry, target, rng, common=common, rows=rows, work=work
        )

    codec = fit_codec(weights)
    targets, centres = codec.encode(weights), codec.encode(expected)
    spread = pooled_rms(targets - centres, codec.shape)
    flow = fit_field(targets, centres, spread, codec.shape, config.flow, rng, group=episodes)
    around = SOURCES[config.flow.source].follows_context
    if around and not symmetry.rows_alone and not flow.wins:
        # Draws from the source itself are as good, and cost no evaluation.
        config = replace(config, sample=replace(config.sample, evaluations=0))
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
    drawn = _drawn(generator, expected, episodes, rng, work)
    inputs = synthetic_inputs(target.input_shape, _INPUTS, rng)
    return GeneratorFit(
        generator=generator,
        held_out=prior.held_out,
        drawn=drawn,
        round_trip=round_trip(
            target, fit_codec, weights, inputs, group=episodes, compared=_COMPARED
        ),
        flow=flow,
    )


def _drawn(
    generator: Generator, expected: Tensor, episodes: int, rng: torch.Generator, work: Workspace
) -> Tensor:
    """Networks around the first of each site's (n * E, D) expected ones, or around some of many.

    Few of them are made at a time.
    """
    sites = len(expected) // episodes
    chosen = torch.linspace(0, sites - 1, min(sites, _DRAWN)).long() * episodes
    noise, drawn = generator.noise(len(chosen), rng), work.empty(len(chosen), expected.shape[1])
    for some in blocks(expected.shape[1], len(chosen)):
        with torch.no_grad():
            drawn[some] = generator.carry(expected[chosen[some]], noise[some])
    return drawn


def fit_without_records(
    target: Target,
    symmetry: OutputSymmetry,
    config: GeneratorConfig,
    rng: torch.Generator,
    anchor: Tensor,
) -> GeneratorFit:
    """A generator that knows of no site, and expects of each what its own context says.

    It is fitted on random contexts, each of which says all: the arguments are as in
    `fit_generator`.
    """
    contexts = torch.randn(_IMAGINED, 1, len(anchor), generator=rng)
    still = replace(config, flow=replace(config.flow, steps=0))
    fit = fit_generator(contexts, anchor + contexts, target, symmetry, still, rng, anchor=anchor)
    generator = replace(fit.generator, mean=anchor.clone(), config=config)
    return replace(fit, generator=generator, held_out=fit.held_out[:0], drawn=fit.drawn[:0])
