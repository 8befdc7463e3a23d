"""The candidates of a site: starts that the server makes, of which the site selects one.

Networks drawn for one context differ in what the context could not say. Of many draws the ones
that suit a site's own few examples best agree in what these examples say beyond the context, and
differ in everything else, so their mean is better than the best of them. It costs the site a
forward pass for each draw and no gradient. No test example is ever used to choose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from f2l_fed.generator.config import CandidatesConfig, SampleConfig
from f2l_fed.generator.generator import Generator
from f2l_fed.local_training import candidate_kinds
from f2l_fed.local_training.site_streams import draws_stream
from f2l_fed.targets.head_rows import class_count, cut
from f2l_fed.targets.layout import WeightLayout
from f2l_fed.wire.messages import Frame

_PART_NUMBERS = 2**24
"""Numbers of the draws that are made at a time."""


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
    parts = _parts(generator, records, context, expected, config, rng, evaluations=evaluations)
    return {kind: weights for part in parts for kind, weights in part.items()}


def candidates_of_site(
    generator: Generator,
    frame: Frame,
    site: str,
    context: Tensor,
    expected: Tensor,
    config: CandidatesConfig,
    layout: WeightLayout,
    *,
    records: FittedRecords | None = None,
) -> Iterator[dict[str, Tensor]]:
    """The candidates of a site outside of rounds, at the centre or at the site itself.

    Args:
        generator: Of the release, or its compact form.
        frame: Of requests outside of rounds.
        site: Name of the site, which decides the draws.
        context: (D,) float32; a head is padded to the most classes.
        expected: (D,) float32, the prior's prediction for the site.
        config: How many draws, and how wide.
        layout: Of a network, or of a head for the most classes.
        records: For the nearest one, where it is a candidate.

    Yields:
        (D,) float32 by kind, some at a time: one head for as many classes as the context has; the
        prediction around a shared network, and that network where it is another; or prediction,
        mean and draws, of which few are ever in memory.
    """
    if frame.body_layout:
        yield {candidate_kinds.PRIOR: head_of_site(context, expected, layout)}
    elif frame.shared is not None:
        yield around_shared(generator, expected)
    else:
        rng = draws_stream(frame.lineage, site)
        yield from _parts(generator, records, context, expected, config, rng)


def head_of_site(context: Tensor, expected: Tensor, layout: WeightLayout) -> Tensor:
    """The head that is expected for a site, for as many classes as its context has.

    A site's own records may be in it: they are no secret to it and, unlike a start, its heads do
    not follow this one.

    Args:
        context: (H,) float32, padded.
        expected: (H,) float32, the prediction for it.
        layout: Of a head for the most classes.
    """
    return cut(expected, layout, class_count(context, layout)).clone()


def around_shared(generator: Generator, expected: Tensor) -> dict[str, Tensor]:
    """The prediction of a prior around a shared network and, if it is another, that network."""
    shared = generator.mean
    if expected.equal(shared):
        return {candidate_kinds.PRIOR: shared}
    return {candidate_kinds.PRIOR: expected.clone(), candidate_kinds.GLOBAL_MEAN: shared}


def _parts(
    generator: Generator,
    records: FittedRecords | None,
    context: Tensor,
    expected: Tensor,
    config: CandidatesConfig,
    rng: torch.Generator,
    *,
    evaluations: int | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Prediction and mean, then the draws, some at a time; all of a mixed fleet's at once."""
    width = config.temperature if generator.fleet is None else config.fleet_temperature
    sample = replace(generator.config.sample, temperature=width)
    if evaluations is not None:
        sample = replace(sample, evaluations=evaluations)
    yield _by_kind(generator, _nearest(records, context) if config.nearest else {}, expected, {})
    centres = generator.centres(context, expected, config.samples)
    if generator.fleet is not None:
        yield _draws(generator, centres, sample, rng)
        return
    # All of the noise at once, so that a draw does not depend on how many are made at a time.
    noise = generator.noise(len(centres), rng)
    most = max(1, _PART_NUMBERS // len(expected))
    for start in range(0, len(centres), most):
        with torch.no_grad():
            some = slice(start, start + most)
            drawn = generator.carry(centres[some], noise[some], sample)
        yield {candidate_kinds.sample(start + index): w for index, w in enumerate(drawn)}


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
