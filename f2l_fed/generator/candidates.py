"""Candidates: the starts a server offers a site, and how the site chooses between them.

Networks drawn for one context differ in what the context could not say. Of many draws the ones
that suit a site's own few examples best agree in what these examples say beyond the context, and
differ in everything else, so their mean is better than the best of them. It costs the site a
forward pass for each draw and no gradient. No test example is ever used to choose.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from f2l_fed.core.validation import positive, require
from f2l_fed.generator.config import SampleConfig
from f2l_fed.generator.generator import Generator
from f2l_fed.local_training import candidate_kinds


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidatesConfig:
    """What a site may choose its start from, besides prior, global mean and nearest record.

    Args:
        samples: Networks drawn for a site that uses the service.
        keep: So many of these, the best on the site's own examples, are averaged.
        temperature: Width of their source, relative to the one that was fitted: a choice can be
            made from more than what is likely.
        training_samples: Networks drawn in a training round, at the generator's own temperature
            and never averaged. Every draw that is chosen there makes the returned network a
            little harder to predict from the site's context.
    """

    samples: int = 64
    keep: int = 8
    temperature: float = 1.5
    training_samples: int = 2

    def __post_init__(self) -> None:
        require(self.samples >= 0, self, "samples", ">= 0")
        positive(self, "keep")
        require(self.temperature >= 0, self, "temperature", ">= 0")
        require(self.training_samples >= 0, self, "training_samples", ">= 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """The records that a generator was fitted on, for the starts that use them directly.

    Args:
        contexts: (n, D) float32.
        weights: (n, D) float32.
    """

    contexts: Tensor
    weights: Tensor

    def nearest(self, context: Tensor, count: int) -> Tensor:
        """(min(count, n), D) float32, weights of the records with the nearest contexts."""
        distances = (self.contexts - context).square().sum(1)
        return self.weights[distances.topk(min(count, len(distances)), largest=False).indices]


def for_training(
    generator: Generator,
    records: Records,
    context: Tensor,
    expected: Tensor,
    config: CandidatesConfig,
    rng: torch.Generator,
) -> dict[str, Tensor]:
    """What a site is offered in a training round.

    Args:
        generator: The promoted generator.
        records: What it was fitted on, without the site's own records if it has some.
        context: (D,) float32, the site's probe.
        expected: (D,) float32, what the prior expects of the site.
        config: How many draws.
        rng: Draws them.

    Returns:
        (D,) float32 by kind: "prior", "global_mean", "nearest" if there is a record, "sample-0", ….
    """
    drawn = _repeated(generator, expected, config.training_samples, None, rng)
    return _offered(generator, records, context, expected, drawn)


def for_service(
    generator: Generator,
    records: Records,
    context: Tensor,
    expected: Tensor,
    config: CandidatesConfig,
    rng: torch.Generator,
    *,
    evaluations: int | None = None,
) -> dict[str, Tensor]:
    """What a site that uses the service is offered; as `for_training`.

    Args:
        evaluations: Instead of the generator's own. With 0 nothing but the source is drawn from,
            which for the source "prior" is a normal distribution around the prediction.
    """
    sample = replace(generator.config.sample, temperature=config.temperature)
    if evaluations is not None:
        sample = replace(sample, evaluations=evaluations)
    drawn = _repeated(generator, expected, config.samples, sample, rng)
    return _offered(generator, records, context, expected, drawn)


def _repeated(
    generator: Generator,
    expected: Tensor,
    count: int,
    sample: SampleConfig | None,
    rng: torch.Generator,
) -> Tensor:
    if not count:
        return expected[None][:0]
    return generator.sample(expected.expand(count, -1), rng, sample)


def _offered(
    generator: Generator, records: Records, context: Tensor, expected: Tensor, drawn: Tensor
) -> dict[str, Tensor]:
    return {
        candidate_kinds.PRIOR: expected,
        candidate_kinds.GLOBAL_MEAN: generator.mean,
        **dict(zip((candidate_kinds.NEAREST,), records.nearest(context, 1), strict=False)),
        **{candidate_kinds.sample(index): weights for index, weights in enumerate(drawn)},
    }
