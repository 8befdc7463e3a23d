"""What a site sent, next to what it was sent: all that admission looks at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

KINDS = ("first", "later")
"""Kinds of rounds: those that start from the anchor, and those from a release."""


class SubmissionId(NamedTuple):
    """Whose networks they are, of which round, from starts of which release."""

    site: str
    round: int
    parent: str

    @property
    def kind(self) -> str:
        """What they can be compared with: long training from the anchor, or a short one later."""
        return "later" if self.parent else "first"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """The networks that a site returned in one round.

    Args:
        site: Its name.
        round: Number of the round.
        parent: Release that made the starts; "" in a round that starts from the anchor.
        weights: (m, D) float32, the returned networks.
        starts: (m, D) float32, what the site was sent and says it started from.
        probes: (E, D) float32, its contexts; m is E, or 1 where all episodes share a network.
        numbers: What the site declares, by name (`f2l_fed.wire.messages.NUMBERS`).
        steps: Gradient steps that were asked for.
        others: (c, D) float32, what else the site was sent; it may have sent one of these back.
    """

    site: str
    round: int
    parent: str
    weights: Tensor
    starts: Tensor
    probes: Tensor
    numbers: Mapping[str, float]
    steps: int
    others: Tensor | None = None

    @property
    def updates(self) -> Tensor:
        """(m, D) float32, what the site changed."""
        return self.weights - self.starts

    @property
    def paired_probes(self) -> Tensor:
        """(m, D) float32, the context of each network; their mean where episodes share one."""
        if len(self.weights) == len(self.probes):
            return self.probes
        return self.probes.mean(dim=0, keepdim=True).expand(len(self.weights), -1)

    @property
    def origin(self) -> SubmissionId:
        """Where it comes from."""
        return SubmissionId(self.site, self.round, self.parent)

    def moved(self, share: Tensor) -> Submission:
        """The same with only a share of each update, (m,) float32."""
        return replace(self, weights=self.starts + share[:, None] * self.updates)
