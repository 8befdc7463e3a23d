"""TODO."""

from __future__ import annotations

from dataclasses import dataclass, field

from f2l_fed.aggregate import AGGREGATORS
from f2l_fed.codec import CODECS
from f2l_fed.core.validation import choice, positive, require
from f2l_fed.flow import SOLVERS, FlowConfig
from f2l_fed.prior.linear_prior import PriorConfig


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
