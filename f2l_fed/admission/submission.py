"""Submissions: the networks a site sent back, next to those it was sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

KINDS = ("first", "later")
"""Kinds of rounds: those that start from the anchor, and those that start from a release."""


class SubmissionId(NamedTuple):
    """The site, the round and the parent release of a submission; "" as parent is the anchor."""

    site: str
    round: int
    parent: str

    @property
    def kind(self) -> str:
        """The kind of round, one of `KINDS`; only submissions of one kind are compared."""
        return "later" if self.parent else "first"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """The networks that a site returned in one round.

    Args:
        site: Name of the site.
        round: Number of the round.
        parent: Release that made the starts; "" in a round that starts from the anchor.
        weights: (m, D) float32, the returned networks.
        starts: (m, D) float32, the networks it was sent and says it started from.
        probes: (E, D) float32, its contexts; m is E, or 1 where all episodes share a network.
        numbers: Declared numbers by name (`f2l_fed.wire.messages.NUMBERS`).
        steps: Gradient steps that were asked for.
        others: (c, D) float32, the other networks it was sent; it may have sent one of them back.
        solved: Whether the declared numbers are those of the site's own network, which it keeps:
            these are heads, solved from zero, or what it made of a shared network.
        shared: Whether all sites start from the same network, and a probe is a change of it too.
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
    solved: bool = False
    shared: bool = False

    @property
    def updates(self) -> Tensor:
        """(m, D) float32, the changes the site made."""
        return self.weights - self.starts

    @property
    def paired_probes(self) -> Tensor:
        """(m, D) float32, the context of each network; their mean where episodes share one."""
        if len(self.weights) == len(self.probes):
            return self.probes
        return self.probes.mean(dim=0, keepdim=True).expand(len(self.weights), -1)

    @property
    def id(self) -> SubmissionId:
        """The site, round and parent."""
        return SubmissionId(self.site, self.round, self.parent)

    def scaled(self, share: Tensor) -> Submission:
        """The submission with a share of each update only, (m,) float32."""
        return replace(self, weights=self.starts + share[:, None] * self.updates)
