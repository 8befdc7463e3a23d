"""Unconditional generation: networks for one task, drawn without any context.

Research only: no federation uses it.

Networks that were trained on one task from different initialisations differ in the order and scale
of their hidden units, which no prediction depends on. Whether to bring them to canonical weights
first is not assumed but measured, by what a codec keeps of networks that it never saw. A codec
then carries the weights to whitened latents, and a flow that never sees a context carries a
source to these. At last the output layer of each drawn network is solved on synthetic inputs, which
makes draws as good as trained networks, and they stay as far from these.

Reference:
    Ainsworth et al.: Git Re-Basin, arXiv 2209.04836, algorithm 3 (matching to the mean).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from f2l_fed.codec import CODECS, Codec
from f2l_fed.codec.canonical_gain import CanonicalGain, held_out_gain
from f2l_fed.codec.config import CodecConfig
from f2l_fed.core.dense_tensors import require_floats
from f2l_fed.core.validation import choice
from f2l_fed.errors import ConfigError, LayoutMismatch, UsageError
from f2l_fed.flow import (
    SOURCES,
    FlowConfig,
    FlowFit,
    Initialisations,
    draw,
    fit_flow,
    guided,
    solve,
)
from f2l_fed.generator.solved_heads import SolvedHeads
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.symmetry.weight_matching import Canonicaliser
from f2l_fed.targets import Target

MIN_NETWORKS = 5
"""Networks of which a fifth can be held out."""

_MATCHINGS = 2
"""Times that the networks are matched to a reference that then becomes their mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnconditionalConfig:
    """Settings of the latent space and of the flow.

    Args:
        canonical: Whether networks become canonical: "measured" leaves it to the held-out round
            trip, "always" and "never" do not.
        codec: The latent space; labels mean the same to all networks, so it has no rows.
        flow: The source is "gaussian" or "kaiming", and the context is always withheld.
        head: "solved" solves the output layer of what is drawn (`SolvedHeads`), "drawn" leaves it.
    """

    canonical: str = "measured"
    codec: CodecConfig = field(default_factory=CodecConfig)
    flow: FlowConfig = field(
        default_factory=lambda: FlowConfig(source="gaussian", dropout=1, batch=32)
    )
    head: str = "solved"

    def __post_init__(self) -> None:
        choice(self, "canonical", ("measured", "always", "never"))
        choice(self, "head", ("solved", "drawn"))
        if SOURCES[self.flow.source].follows_context or self.flow.dropout != 1:
            raise ConfigError(
                "the flow depends on a context",
                where="flow",
                expected="the source 'gaussian' or 'kaiming', and dropout 1",
                got=f"the source {self.flow.source!r}, and dropout {self.flow.dropout:g}",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Unconditional:
    """A generator of networks for one task.

    Args:
        canonical: Brought the networks to the form that samples have, so that others can be
            compared with them; None if they stayed as they were.
        gain: Gain of the held-out round trip by it; None if it was not measured.
        codec: Weights to latents and back.
        flow: The fitted field and its course.
        initial: Random initialisations, where these are the source.
        heads: Solves the output layers of what is drawn; None if they stay as drawn.
    """

    canonical: Canonicaliser | None
    gain: CanonicalGain | None
    codec: Codec
    flow: FlowFit
    initial: Initialisations | None
    heads: SolvedHeads | None

    def form(self, weights: Tensor) -> Tensor:
        """(n, D) float32 networks in the form that samples have; they predict the same."""
        return self.canonical(weights) if self.canonical else weights

    @torch.no_grad()
    def sample(self, count: int, rng: torch.Generator, evaluations: int = 4) -> Tensor:
        """Draws networks.

        Args:
            count: How many.
            rng: Draws the source.
            evaluations: Of the velocity; even numbers by the midpoint rule, odd ones by Euler's.
                0 decodes the source as it is; 1 leads every start to the mean network, for the
                velocity at a start is where its partners lie on average.

        Returns:
            (count, D) float32; the same bits for equal inputs on the same build. The statistics of
            batch normalisation are drawn as well; `Target.calibrated` replaces them.

        Raises:
            UsageError: If a number is negative.
        """
        if min(count, evaluations) < 0:
            raise UsageError(
                "a negative number of networks or evaluations",
                where="sample",
                got=f"{count} and {evaluations}",
            )
        model, shape = self.flow.field, self.codec.shape
        nothing = torch.zeros(count, shape.size)
        start = draw(model.source, nothing, model.spread, shape, rng, initial=self.initial)
        velocity = guided(model, nothing[:1], guidance=0)
        solver = "euler" if evaluations % 2 else "midpoint"
        end = solve(velocity, start, solver=solver, evaluations=evaluations)
        drawn = self.codec.decode(end)
        return self.heads(drawn) if self.heads else drawn


def fit_unconditional(
    weights: Tensor, target: Target, config: UnconditionalConfig, rng: torch.Generator
) -> Unconditional:
    """Fits codec and flow.

    Args:
        weights: (n, D) float32, n >= `MIN_NETWORKS` networks that were trained independently on
            one task.
        target: The target of the networks.
        config: See `UnconditionalConfig`.
        rng: Draws everything random.

    Raises:
        LayoutMismatch: If these aren't rows of the target's weights.
        UsageError: If there are too few, they are all equal, or a weight is not finite.
        TargetError: If the target's symmetries are needed but not known, or its output layer is to
            be solved but not the last thing that it does.
    """
    _check(weights, target)
    symmetry = OutputSymmetry.of(target, enabled=False)

    def fit_codec(some: Tensor) -> Codec:
        common, rows = config.codec.common, config.codec.rows
        return CODECS[config.codec.kind].fit(some, symmetry, target, rng, common=common, rows=rows)

    canonical = None if config.canonical == "never" else _towards_mean(weights, target)
    gain = None
    if canonical and config.canonical == "measured":
        gain = held_out_gain(weights, canonical, fit_codec)
        canonical = canonical if gain.helps else None
    weights = canonical(weights) if canonical else weights
    codec = fit_codec(weights)
    latents = codec.encode(weights)
    initial = _initialisations(target, codec, rng) if config.flow.source == "kaiming" else None
    nothing, unit = torch.zeros_like(latents), torch.ones(codec.shape.size)
    flow = fit_flow(latents, nothing, unit, codec.shape, config.flow, rng, initial=initial)
    heads = SolvedHeads.of(target, weights, rng) if config.head == "solved" else None
    return Unconditional(
        canonical=canonical, gain=gain, codec=codec, flow=flow, initial=initial, heads=heads
    )


def _check(weights: Tensor, target: Target) -> None:
    require_floats(weights=weights)
    if weights.ndim != 2 or weights.shape[1] != target.layout.size:
        raise LayoutMismatch(
            "the weights are not those of the target",
            where=f"target {target.name!r}",
            expected=f"weights of shape (n, {target.layout.size})",
            got=str(tuple(weights.shape)),
        )
    if len(weights) < MIN_NETWORKS:
        raise UsageError(
            "too few networks",
            expected=f"{MIN_NETWORKS} or more",
            got=str(len(weights)),
            remedy="Train more from other initialisations.",
        )
    if len(bad := (~weights.isfinite().all(1)).nonzero()):
        raise UsageError(
            "a network has a weight that is not finite",
            where=f"network {int(bad[0])}",
            remedy="Leave it out.",
        )
    if bool((weights == weights[0]).all()):
        raise UsageError(
            "all networks are equal",
            remedy="Train them from different initialisations.",
        )


def _towards_mean(weights: Tensor, target: Target) -> Canonicaliser:
    """The canonical form whose reference is the mean of the networks that no codec holds out.

    A single network as the reference would pass on what is peculiar to it.
    """
    seen = weights[: len(weights) * 4 // 5]
    canonical = Canonicaliser.of(target, seen[0])
    for _ in range(_MATCHINGS):
        canonical = Canonicaliser.of(target, canonical(seen).mean(0))
    return canonical


def _initialisations(target: Target, codec: Codec, rng: torch.Generator) -> Initialisations:
    # Left in the order that they come in: all orders are equally likely.
    def make(count: int, draws: torch.Generator) -> Tensor:
        fresh = [target.initialise(draws) for _ in range(count)]
        return codec.encode(torch.stack(fresh)) if fresh else torch.zeros(0, codec.shape.size)

    return Initialisations.measured(make, codec.shape, rng)
