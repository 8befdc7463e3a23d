"""The candidates of a site: starts that the server makes, of which the site selects one.

Networks drawn for one context differ in what the context could not say. Of many draws the ones
that suit a site's own few examples best agree in what these examples say beyond the context, and
differ in everything else, so their mean is better than the best of them. It costs the site a
forward pass for each draw and no gradient. No test example is ever used to choose.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from f2l_fed.core.placement import moved
from f2l_fed.generator.config import CandidatesConfig, SampleConfig
from f2l_fed.generator.generator import Generator
from f2l_fed.local_training import candidate_kinds
from f2l_fed.local_training.selection import CandidateSet
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
    nearest: Sequence[Tensor | None],
    expected: Tensor,
    config: CandidatesConfig,
    rng: torch.Generator,
) -> CandidateSet:
    """The candidates of a site in a training round, for each of its episodes.

    Args:
        generator: The promoted generator.
        nearest: (D,) float32, for each episode the stored network with the nearest context, none
            of the site's own; None where that is no candidate, or there is no record.
        expected: (E, D) float32, the prior's predictions for the site.
        config: How many draws.
        rng: Draws them.

    Returns:
        (D,) float32 by kind, on the CPU: "prior", "global_mean", perhaps "nearest", "sample-0", …
        (in a mixed fleet with the family: "sample-1-0"). All are of the family of the prediction.
    """
    there = moved(expected, generator.device)
    drawn = _draws_each(generator, there, config.training_samples, rng).cpu()
    made = []
    for episode, family in enumerate(generator.family_of(there).tolist()):
        draws = {candidate_kinds.sample(i, family): w for i, w in enumerate(drawn[episode])}
        made.append(
            {
                candidate_kinds.PRIOR: expected[episode],
                candidate_kinds.GLOBAL_MEAN: generator.members[family].mean.cpu(),
                **_nearest(nearest[episode]),
                **draws,
            }
        )
    return tuple(made)


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
    """(D,) float32 by kind, the candidates of a site that uses the service.

    In a mixed fleet the draws are from all families, in the share that the context says.

    Args:
        generator: The promoted generator; candidates are on its device.
        records: Those that it was fitted on, without the site's own; used for the nearest one
            alone, and not needed without it.
        context: (D,) float32, the site's probe.
        expected: (D,) float32, the prior's prediction for the site.
        config: How many draws, how wide, and whether the nearest record is a candidate.
        rng: Draws them.
        evaluations: Instead of the generator's own. With 0 nothing but the source is drawn from,
            which for the source "prior" is a normal distribution around the prediction.
    """
    found = records.nearest(context, 1) if records is not None and config.nearest else ()
    nearest = next(iter(found), None)
    parts = _parts(generator, nearest, context, expected, config, rng, evaluations=evaluations)
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
    nearest: Tensor | None = None,
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
        nearest: (D,) float32, the stored network with the nearest context, where it is a candidate.

    Yields:
        (D,) float32 by kind, some at a time and on the generator's device: one head for as many
        classes as the context has; the prediction around a shared network, and that network where
        it is another; or prediction, mean and draws, of which few are ever in memory.
    """
    if frame.body_layout:
        yield {candidate_kinds.PRIOR: head_of_site(context, expected, layout)}
    elif frame.shared is not None:
        yield around_shared(generator, expected)
    else:
        rng = draws_stream(frame.lineage, site)
        yield from _parts(generator, nearest, context, expected, config, rng)


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
    nearest: Tensor | None,
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
    context, expected = (moved(vector, generator.device) for vector in (context, expected))
    family = int(generator.family_of(expected[None]))
    yield {
        candidate_kinds.PRIOR: expected,
        candidate_kinds.GLOBAL_MEAN: generator.members[family].mean,
        **_nearest(None if nearest is None else nearest.to(generator.device)),
    }
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


def _nearest(weights: Tensor | None) -> dict[str, Tensor]:
    return {} if weights is None else {candidate_kinds.NEAREST: weights}


@torch.no_grad()
def _draws_each(generator: Generator, expected: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """(E, count, D) float32, networks around each of (E, D) predictions, drawn in their order."""
    if not count:
        return expected[:, None][:, :0]
    if generator.fleet is not None:
        each = [generator.sample(one.expand(count, -1), rng) for one in expected]
        return torch.stack(each)
    noise = torch.cat([generator.noise(count, rng) for _ in expected])
    return generator.carry(expected, noise).view(len(expected), count, -1)


def _draws(
    generator: Generator, centres: Tensor, sample: SampleConfig | None, rng: torch.Generator
) -> dict[str, Tensor]:
    """One network around each of (m, D) centres, by kind."""
    if not len(centres):
        return {}
    families = generator.family_of(centres).tolist()
    drawn = enumerate(generator.sample(centres, rng, sample))
    return {candidate_kinds.sample(index, families[index]): weights for index, weights in drawn}
