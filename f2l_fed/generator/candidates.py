"""The candidates of a site: starts that the server makes, of which the site selects one.

Networks drawn for one context differ in what the context could not say. Of many draws the ones
that suit a site's own few examples best agree in what these examples say beyond the context, and
differ in everything else, so their mean is better than the best of them. It costs the site a
forward pass for each draw and no gradient. No test example is ever used to choose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from f2l_fed.generator.config import CandidatesConfig, SampleConfig
from f2l_fed.generator.generator import Generator
from f2l_fed.local_training import candidate_kinds


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedRecords:
    """The records that a generator was fitted on, for the candidates that are made of them.

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


def candidates_for_training(
    generator: Generator,
    records: FittedRecords | None,
    context: Tensor,
    expected: Tensor,
    config: CandidatesConfig,
    rng: torch.Generator,
) -> dict[str, Tensor]:
    """The candidates of a site in a training round.

    Args:
        generator: The promoted generator.
        records: Those that it was fitted on, without the site's own; used for the nearest one
            alone, and not needed without it.
        context: (D,) float32, the site's probe.
        expected: (D,) float32, the prior's prediction for the site.
        config: How many draws, and whether the nearest record is a candidate.
        rng: Draws them.

    Returns:
        (D,) float32 by kind: "prior", "global_mean", "nearest" if it is asked for and there is a
        record, "sample-0", … (in a mixed fleet with the family: "sample-1-0"). All are of the
        family of the prediction.
    """
    centres = expected.expand(config.training_samples, -1)
    drawn = _draws(generator, centres, None, rng)
    near = _nearest(records, context) if config.nearest else {}
    return _by_kind(generator, near, expected, drawn)


def candidates_for_service(
    generator: Generator,
    records: FittedRecords | None,
    context: Tensor,
    expected: Tensor,
    config: CandidatesConfig,
    rng: torch.Generator,
    *,
    evaluations: int | None = None,
) -> dict[str, Tensor]:
    """The candidates of a site that uses the service; as `candidates_for_training`.

    In a mixed fleet the draws are from all families, in the share that the context says.

    Args:
        evaluations: Instead of the generator's own. With 0 nothing but the source is drawn from,
            which for the source "prior" is a normal distribution around the prediction.
    """
    width = config.temperature if generator.fleet is None else config.fleet_temperature
    sample = replace(generator.config.sample, temperature=width)
    if evaluations is not None:
        sample = replace(sample, evaluations=evaluations)
    centres = generator.centres(context, expected, config.samples)
    drawn = _draws(generator, centres, sample, rng)
    near = _nearest(records, context) if config.nearest else {}
    return _by_kind(generator, near, expected, drawn)


def _draws(
    generator: Generator, centres: Tensor, sample: SampleConfig | None, rng: torch.Generator
) -> dict[str, Tensor]:
    """One network around each of (m, D) centres, by kind."""
    if not len(centres):
        return {}
    families = generator.family_of(centres).tolist()
    drawn = enumerate(generator.sample(centres, rng, sample))
    return {candidate_kinds.sample(index, families[index]): weights for index, weights in drawn}


def _nearest(records: FittedRecords | None, context: Tensor) -> dict[str, Tensor]:
    found = () if records is None else records.nearest(context, 1)
    return dict(zip((candidate_kinds.NEAREST,), found, strict=False))


def _by_kind(
    generator: Generator,
    nearest: Mapping[str, Tensor],
    expected: Tensor,
    drawn: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    family = int(generator.family_of(expected[None]))
    return {
        candidate_kinds.PRIOR: expected,
        candidate_kinds.GLOBAL_MEAN: generator.members[family].mean,
        **nearest,
        **drawn,
    }
