"""A submission with all that it is judged by; what is dear is worked out when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from f2l_fed.admission.anatomy import Anatomy
from f2l_fed.admission.config import AdmissionConfig
from f2l_fed.admission.measures import SPREAD, Measures, measure, spread_of
from f2l_fed.admission.memory import Memory
from f2l_fed.admission.submission import Origin, Submission
from f2l_fed.admission.votes import Usual, Votes, usual

_NEIGHBOURS = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Latents:
    """The networks in the zoo as a codec sees them.

    Args:
        encode: (m, D) float32 weights to (m, k) float32, for example a codec's common part.
        known: (n, k) float32, those in the zoo.
    """

    encode: Callable[[Tensor], Tensor]
    known: Tensor

    def far(self, weights: Tensor) -> Tensor:
        """(m,) float64, log distance to the third nearest of the known."""
        return _third(torch.cdist(self.encode(weights).double(), self.known.double()))

    def usual(self, floor: float) -> Usual:
        """The same of the known, each from the others."""
        apart = torch.cdist(self.known.double(), self.known.double()).fill_diagonal_(torch.inf)
        return usual(_third(apart).numpy() if len(self.known) > _NEIGHBOURS else [], floor)


def _third(distances: Tensor) -> Tensor:
    near = min(_NEIGHBOURS, distances.shape[1])
    return distances.kthvalue(near, dim=1).values.clamp(min=1e-12).log()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compared:
    """Figures of one site next to those of all.

    How long updates and probes are depends on the release they started from; whatever else is
    compared does not, so that earlier rounds have a say in it.

    Args:
        values: (m,) float64 by name.
        votes: All sites'.
        peers: Those from the same release; see `peers_of`.
        config: Limits.
    """

    values: Mapping[str, Tensor]
    votes: Votes
    peers: Votes
    config: AdmissionConfig

    def usual(self, name: str, *, wide: float = 1.0) -> Usual:
        """What sites have; ``wide`` widens the floor."""
        return self.votes.usual(name, wide * self.config.floor)

    def usual_logarithm(self, name: str) -> Usual:
        """What sites that started from the same release have of a length's logarithm."""
        return self.peers.usual(name, self.config.floor)

    def usual_length(self, name: str, *, wide: float = 1.0) -> Usual:
        """The same of the length itself; see `f2l_fed.admission.votes.usual_length`."""
        return self.peers.usual_length(name, wide * self.config.floor)


def peers_of(memory: Memory, origin: Origin, minimum: int) -> Votes:
    """The votes of those that started from the same release.

    A late submission may have too few of them left: then those of the newest round, so that
    nobody escapes a comparison by being late. Whoever is first in a round has nobody yet.
    """
    votes = memory.votes_on(origin.kind)
    same = votes.from_release(origin.parent)
    if len(same.sites) >= minimum:
        return same
    newest = max(
        (owner for owner in memory.owners if owner.kind == origin.kind),
        key=lambda owner: owner.round,
        default=origin,
    )
    return votes.from_release(newest.parent) if newest.round > origin.round else same


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """Everything that checks may look at.

    Args:
        submission: What is judged.
        memory: What was admitted before.
        config: Limits.
        anatomy: Where the parts of a network lie.
        episodes: Number of probes that were asked for.
        logits: (D,) weights and (n, *input_shape) inputs to (n, K) logits.
        inputs: (n, *input_shape) float32, synthetic inputs.
        latents: The zoo in latent space; None where there is no codec yet.
    """

    submission: Submission
    memory: Memory
    config: AdmissionConfig
    anatomy: Anatomy
    episodes: int
    logits: Callable[[Tensor, Tensor], Tensor]
    inputs: Tensor
    latents: Latents | None = None

    @cached_property
    def measures(self) -> Measures:
        """The figures of a submission in the right form."""
        return measure(self.submission, self.anatomy)

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
    def compared(self) -> Compared:
        """The figures that cost no forward pass, with the votes on them."""
        origin = self.submission.origin
        return Compared(
            values=self.measures.values,
            votes=self.memory.votes_on(origin.kind),
            peers=peers_of(self.memory, origin, self.config.minimum),
            config=self.config,
        )

    @cached_property
    def behaved(self) -> Compared:
        """The figure that costs one."""
        return replace(self.compared, values={SPREAD: self.spread})
