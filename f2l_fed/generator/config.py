"""Settings of the generator."""

from __future__ import annotations

from dataclasses import dataclass, field

from f2l_fed.aggregate.registry import AGGREGATORS
from f2l_fed.codec.config import CodecConfig
from f2l_fed.core.validation import choice, positive, require
from f2l_fed.flow.config import FlowConfig
from f2l_fed.flow.solvers.registry import SOLVERS
from f2l_fed.prior.config import PriorConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateConfig:
    """Settings of the mean network, which every site gets as a candidate.

    Args:
        rule: A key of `f2l_fed.aggregate.AGGREGATORS`.
        byzantine: Number of networks that may come from Byzantine sites.
    """

    rule: str = "mean"
    byzantine: int = 0

    def __post_init__(self) -> None:
        choice(self, "rule", AGGREGATORS)
        require(self.byzantine >= 0, self, "byzantine", ">= 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleConfig:
    """Settings of the draws of networks.

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
    """All settings that decide what a retraining makes of a zoo."""

    aggregate: AggregateConfig = field(default_factory=AggregateConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)


MOST_SAMPLES = 4096
"""Most networks that a site draws from a compact generator."""

PRECISIONS = ("fp32", "fp16", "int8")
"""Precisions of the matrices of a compact generator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseConfig:
    """Settings of what sites may have of a release beside the candidates made for them.

    Args:
        to_sites: Whether registered sites may fetch the compact generator of the promoted release
            and make candidates themselves; sites see it in every request and may refuse.
        rank: Largest rank of its maps and of its latent space, and never more than a quarter of
            the number of sites.
        precision: "fp32", "fp16" or "int8", of its matrices.
        samples: Networks that a site draws from it, where networks are drawn.
    """

    to_sites: bool = False
    rank: int = 32
    precision: str = "fp16"
    samples: int = 1024

    def __post_init__(self) -> None:
        positive(self, "rank")
        choice(self, "precision", PRECISIONS)
        require(0 <= self.samples <= MOST_SAMPLES, self, "samples", f"0 to {MOST_SAMPLES}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidatesConfig:
    """Settings of a site's candidates, besides prior and global mean.

    Args:
        nearest: Whether a site is also sent the stored network with the nearest context, which is
            another site's network as it is; sites see it in every request and may refuse.
        samples: Networks drawn for a site that uses the service.
        keep: So many of these, the best on the site's own examples, are averaged.
        temperature: Width of their source, relative to the one that was fitted: a choice can be
            made from more than what is likely.
        fleet_temperature: The same in a mixed fleet, where each family has a part of the draws and
            of the sites.
        training_samples: Networks drawn in a training round, at the generator's own temperature
            and never averaged. Every draw that is chosen there makes the returned network a
            little harder to predict from the site's context.
    """

    nearest: bool = False
    samples: int = 64
    keep: int = 8
    temperature: float = 1.5
    fleet_temperature: float = 0.6
    training_samples: int = 2

    def __post_init__(self) -> None:
        require(self.samples >= 0, self, "samples", ">= 0")
        positive(self, "keep")
        require(self.temperature >= 0, self, "temperature", ">= 0")
        require(self.fleet_temperature >= 0, self, "fleet_temperature", ">= 0")
        require(self.training_samples >= 0, self, "training_samples", ">= 0")
