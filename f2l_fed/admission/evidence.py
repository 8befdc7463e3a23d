"""Evidence of a submission: everything the checks may look at; costly parts are made on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil

import torch
from torch import Tensor

from f2l_fed.admission.config import AdmissionConfig
from f2l_fed.admission.features import (
    SPREAD,
    Features,
    extract_features,
    output_spread,
    row_factors,
)
from f2l_fed.admission.history import History
from f2l_fed.admission.robust_statistics import Reference
from f2l_fed.admission.site_statistics import Ranking
from f2l_fed.admission.submission import Submission
from f2l_fed.admission.weight_sketch import WeightSketch

FEW = 3
"""Smallest number of sites whose median one Byzantine site doesn't decide."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparisons:
    """Figures of one site next to those of all sites.

    Args:
        values: (m,) float64 by name.
        statistics: The figures of all sites.
        peers: Those of the sites that started from the same release.
        complete: Whether all sites of the round have answered that will.
        few: Number of sites from which on a length many times the median's is an outlier even
            below `AdmissionConfig.minimum`.
        config: Limits.
    """

    values: Mapping[str, Tensor]
    statistics: Ranking
    peers: Ranking
    complete: bool
    few: int
    config: AdmissionConfig

    def reference(self, name: str, *, wide: float = 1.0) -> Reference:
        """The reference over all sites; ``wide`` widens the floor."""
        return self.statistics.reference(name, wide * self.config.floor)

    def among_few(self, name: str) -> tuple[Tensor, Reference] | None:
        """Logarithm of a length in medians, where fewer sites than `minimum` are known.

        Args:
            name: Name of the figure, a logarithm.

        Returns:
            (m,) float64, and the reference; None where more sites are known, or not even a few.
        """
        reference = self.reference(name)
        if not self.few <= reference.sites < self.config.minimum:
            return None
        return self.values[name] - reference.median, reference

    def by_release(
        self, values: Tensor, refer: Callable[[Ranking], Reference]
    ) -> tuple[Tensor, Reference] | None:
        """Deviations of a figure that depends on the parent release.

        The length of an update is such a figure. The reference is over the sites that started
        from the same release, but not before most of them have answered: otherwise the first of a
        round could decide for all. So until the round is complete, a deviation from them counts
        only as far as it is one from all sites' newest figures as well. Where too few started from
        that release, the reference is over all sites' newest figures alone, and
        `AdmissionConfig.far` takes the place of `AdmissionConfig.deviations`.

        Args:
            values: (m,) float64.
            refer: Makes the reference from a ranking.

        Returns:
            (m,) float64 in robust standard deviations, and the reference; None where too few sites
            are known.
        """
        minimum, same = self.config.minimum, refer(self.peers)
        if same.sites >= minimum and self.complete:
            return same.deviations(values), same
        everyone = refer(self.statistics)
        if same.sites >= minimum:
            return _nearer(same.deviations(values), everyone.deviations(values)), same
        if everyone.sites < minimum:
            return None
        spread = everyone.spread * self.config.far / self.config.deviations
        wide = everyone._replace(spread=spread)
        return wide.deviations(values), wide


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """Everything that checks may look at.

    Args:
        submission: The submission.
        history: The admission history before it.
        config: Limits.
        sketch: Sketches weights.
        episodes: Number of probes that were asked for.
        logits: (D,) weights and (n, *input_shape) inputs to (n, K) logits.
        inputs: (n, *input_shape) float32, synthetic inputs.
        expected_sites: Number of sites expected in the round; 0 if that is not known.
    """

    submission: Submission
    history: History
    config: AdmissionConfig
    sketch: WeightSketch
    episodes: int
    logits: Callable[[Tensor, Tensor], Tensor]
    inputs: Tensor
    expected_sites: int = 0

    @cached_property
    def features(self) -> Features:
        """The features of a submission in the right shapes."""
        return extract_features(self.submission, self.sketch)

    @cached_property
    def outputs(self) -> Tensor:
        """(m, n, K) float32, the networks' logits on the synthetic inputs."""
        with torch.no_grad():
            return torch.stack([self.logits(w, self.inputs) for w in self.submission.weights])

    @cached_property
    def spread(self) -> Tensor:
        """(m,) float64, logarithm of the outputs' standard deviation over inputs."""
        spread = output_spread(self.outputs) * row_factors(self.submission.weights, self.sketch)
        return spread.clamp(min=1e-12).log()

    @cached_property
    def weight_comparisons(self) -> Comparisons:
        """The figures that cost no forward pass, with the statistics they are compared with.

        The first of a round may not decide for the rest: among two thirds of the sites fewer than
        half are Byzantine if less than a third of all are. Until so many sites are known the
        comparison is left to `review_cohort`.
        """
        one, two_thirds = self.submission.id, ceil(2 * self.expected_sites / 3)
        statistics = self.history.statistics_on(one.kind)
        return Comparisons(
            values=self.features.values,
            statistics=statistics.everyone(),
            peers=statistics.from_release(one.parent),
            complete=False,
            few=max(FEW, two_thirds),
            config=replace(self.config, minimum=max(self.config.minimum, two_thirds)),
        )

    @cached_property
    def output_comparisons(self) -> Comparisons:
        """The figure that costs a forward pass, with the same statistics."""
        return replace(self.weight_comparisons, values={SPREAD: self.spread})


def _nearer(a: Tensor, b: Tensor) -> Tensor:
    """Elementwise the one nearer to zero; zero where they have different signs."""
    nearer = a.sign() * torch.minimum(a.abs(), b.abs())
    return torch.where(a.sign() == b.sign(), nearer, torch.zeros_like(a))
