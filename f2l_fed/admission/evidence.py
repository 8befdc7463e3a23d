"""A submission with all that it is judged by; what is dear is worked out when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil

import torch
from torch import Tensor

from f2l_fed.admission.config import AdmissionConfig
from f2l_fed.admission.features import SPREAD, Features, extract_features, spread_of
from f2l_fed.admission.history import History
from f2l_fed.admission.robust_statistics import Reference, SiteStatistics
from f2l_fed.admission.submission import Submission
from f2l_fed.admission.weight_sketch import WeightSketch

FEW = 3
"""Sites of whom one may lie."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparisons:
    """Figures of one site next to those of all.

    Args:
        values: (m,) float64 by name.
        votes: All sites'.
        peers: Those that started from the same release.
        complete: Whether all have come that will.
        few: From so many sites on, what is ten times another's is told even below
            `AdmissionConfig.minimum`.
        config: Limits.
    """

    values: Mapping[str, Tensor]
    votes: SiteStatistics
    peers: SiteStatistics
    complete: bool
    few: int
    config: AdmissionConfig

    def usual(self, name: str, *, wide: float = 1.0) -> Reference:
        """What sites have; ``wide`` widens the floor."""
        return self.votes.usual(name, wide * self.config.floor)

    def among_few(self, name: str) -> tuple[Tensor, Reference] | None:
        """How many times a length is the median's, as a logarithm, where too few are known.

        Args:
            name: Of the figure, a logarithm.

        Returns:
            (m,) float64, and what is usual; None where more are known, or not even a few.
        """
        others = self.usual(name)
        if not self.few <= others.voters < self.config.minimum:
            return None
        return self.values[name] - others.centre, others

    def by_release(
        self, values: Tensor, usual: Callable[[SiteStatistics], Reference]
    ) -> tuple[Tensor, Reference] | None:
        """Deviations of a figure that depends on the release that was started from.

        How long updates are is such a figure. Those that started from the same release tell what
        is usual, but not before most have come: whoever is first in a round could then decide for
        all. So until all have come, what is unlike them counts only as far as it is unlike all
        sites' newest as well. Where too few started from that release, all sites' newest are
        asked alone, and `AdmissionConfig.far` is what `AdmissionConfig.deviations` is otherwise.

        Args:
            values: (m,) float64.
            usual: What is usual among votes.

        Returns:
            (m,) float64 in robust standard deviations, and from what; None where too few are known.
        """
        least, same = self.config.minimum, usual(self.peers)
        if same.voters >= least and self.complete:
            return same.deviations(values), same
        all_ = usual(self.votes)
        if same.voters >= least:
            return _nearer(same.deviations(values), all_.deviations(values)), same
        if all_.voters < least:
            return None
        wide = all_._replace(spread=all_.spread * self.config.far / self.config.deviations)
        return wide.deviations(values), wide


def _nearer(a: Tensor, b: Tensor) -> Tensor:
    """Elementwise the one nearer to zero; zero where they have different signs."""
    nearer = a.sign() * torch.minimum(a.abs(), b.abs())
    return torch.where(a.sign() == b.sign(), nearer, torch.zeros_like(a))


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """Everything that checks may look at.

    Args:
        submission: What is judged.
        memory: What was admitted before.
        config: Limits.
        anatomy: Where the parts of a network lie.
        episodes: Number of probes that were asked for.
        logits: (D,) weights and (n, *input_shape) inputs to (n, K) logits.
        inputs: (n, *input_shape) float32, synthetic inputs.
        sites: How many are expected in the round; 0 if that is not known.
    """

    submission: Submission
    memory: History
    config: AdmissionConfig
    anatomy: WeightSketch
    episodes: int
    logits: Callable[[Tensor, Tensor], Tensor]
    inputs: Tensor
    sites: int = 0

    @cached_property
    def measures(self) -> Features:
        """The figures of a submission in the right form."""
        return extract_features(self.submission, self.anatomy)

    @cached_property
    def outputs(self) -> Tensor:
        """(m, n, K) float32, the networks' logits on the synthetic inputs."""
        with torch.no_grad():
            return torch.stack([self.logits(w, self.inputs) for w in self.submission.weights])

    @cached_property
    def spread(self) -> Tensor:
        """(m,) float64, log of how far outputs differ from input to input."""
        return spread_of(self.outputs).clamp(min=1e-12).log()

    @cached_property
    def compared(self) -> Comparisons:
        """The figures that cost no forward pass, with the votes on them.

        Whoever comes first may not decide for the rest: among two thirds of the sites less than
        half lie if less than a third of all do. Until so many are known it is left to `review`.
        """
        origin, most = self.submission.origin, ceil(2 * self.sites / 3)
        return Comparisons(
            values=self.measures.values,
            votes=self.memory.votes_on(origin.kind),
            peers=self.memory.votes_on(origin.kind).from_release(origin.parent),
            complete=False,
            few=max(FEW, most),
            config=replace(self.config, minimum=max(self.config.minimum, most)),
        )

    @cached_property
    def behaved(self) -> Comparisons:
        """The figure that costs one."""
        return replace(self.compared, values={SPREAD: self.spread})
