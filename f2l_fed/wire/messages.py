"""The messages between server and sites.

Down go requests: `ProbeRequest` to a site of which the server has no context yet, and `Task` with
candidate networks. Up come replies: `ProbeReply`, `Update`, or a `Refusal`.
`f2l_fed.wire.packing` turns them into Flower's records and back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from f2l_fed.local_training.config import (
    LOSSES,
    EpisodesConfig,
    HeadConfig,
    Recipe,
    SharedConfig,
)

if TYPE_CHECKING:
    from torch import Tensor

    from f2l_fed.targets.frozen_part import FrozenPart

PROBE_ACTION = "query.probe"
TASK_ACTION = "train.task"

NUMBERS = (
    *("examples", "steps", "loss_before", "loss_after", "accuracy_before", "accuracy_after"),
    *LOSSES,
)
"""Names of the numbers that an update may declare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The part of every request from which a site builds the same network.

    Args:
        lineage: The lineage, which names the anchor.
        target: Name of the target network.
        classes: Number of its outputs; with a body, the most that a site may have.
        input_shape: Shape of its inputs.
        layout: Digest of its layout.
        episodes: Number of probes that the site makes, each on its own draw of examples.
        shots: Support examples per class for a probe.
        probe: Recipe of a probe.
        shared_labels: Whether label k means the same at every site.
        nearest: Whether the networks of other sites are handed out as they are, as candidates.
        to_sites: Whether sites may fetch the compact generator of a release.
        adapt: "all" where whole networks are generated; "head" where the output layer is, on a
            body that all sites share. Networks and probes are then heads, and the layout is that
            of a head for the most classes; a site's heads have its own number of classes.
        body_layout: Digest of the body's layout; "" without a body.
        episodic: How the body is trained; None without a body.
        head: How heads are solved; None without a body.
        shared: How sites train and use a network that all of them share; None without one.
        frozen: The frozen part whose features the network takes, by its digest; None without one.
        scales: Digest of the scales of numbers that all sites have agreed on; "" for none.
    """

    lineage: str
    target: str
    classes: int
    input_shape: tuple[int, ...]
    layout: str
    episodes: int
    shots: int
    probe: Recipe
    shared_labels: bool = False
    nearest: bool = False
    to_sites: bool = False
    adapt: str = "all"
    body_layout: str = ""
    episodic: EpisodesConfig | None = None
    head: HeadConfig | None = None
    shared: SharedConfig | None = None
    frozen: FrozenPart | None = None
    scales: str = ""

    @property
    def needs_latest(self) -> bool:
        """Whether only the latest protocol has messages of this kind."""
        return self.adapt != "all" or self.shared is not None or self.frozen is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRequest:
    """A request for a site's probes alone.

    Args:
        frame: The network.
        anchor: (D,) float32, the start of the probes; None for the lineage's first anchor, which
            the site rebuilds. With a body, (B,) float32: the body on which contexts are made.
        chain: Digests of all bodies of the lineage up to that one, oldest first; empty without.
    """

    frame: Frame
    anchor: Tensor | None
    chain: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A request to fine-tune the best of some candidates and to send back the result.

    Args:
        frame: The network.
        anchor: As in `ProbeRequest`.
        round: Number of the round, from 1; 0 outside of rounds, where the site returns nothing.
        release: The release that made the candidates; "" for the anchor.
        recipe: Recipe of the fine-tuning.
        candidates: For each episode, (D,) float32 by kind ("prior", "sample-0", …); the site
            fine-tunes the best of each. Empty means one network, from the lineage's first anchor.
            With a shared network, which is trained from the anchor, there is one episode or none:
            the networks of the release, of which the site makes its own.
            With a body there is one episode or none: the heads that were generated for the site,
            for as many classes as its context had.
        body: (B,) float32, the release's body, to which the candidates belong; None without a body
            or a release. The body that is trained, and on which heads are made, is the anchor.
        chain: As in `ProbeRequest`.
        temperatures: Divisors of the logits of the site's own network, from the release, each
            with the number of examples per class that it was learnt for, in ascending order.
        keep: Above 1, the mean of so many draws, those that suit the site's examples best, is one
            more candidate.
    """

    frame: Frame
    anchor: Tensor | None
    round: int
    release: str
    recipe: Recipe
    candidates: tuple[Mapping[str, Tensor], ...]
    body: Tensor | None = None
    chain: tuple[str, ...] = ()
    temperatures: tuple[tuple[int, float], ...] = ()
    keep: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """The reply to a task: all that a site sends.

    Args:
        site: Name of the site; trusted only where names are not bound to keys.
        round: As in the task.
        chosen: Kind of the candidate that each network started from; "anchor" without any.
        weights: (len(chosen), D) float32, the updated parameters.
        probes: (E, D) float32, the probe updates.
        numbers: Some or all of `NUMBERS`, as the site's policy allows.
        body: (B,) float32, the body after the site's episodes; None without one. Weights are then
            heads on all examples and probes heads on few, E of each or, from a site with a privacy
            budget, none. What is unpacked has them padded to the most classes.
    """

    site: str
    round: int
    chosen: tuple[str, ...]
    weights: Tensor
    probes: Tensor
    numbers: Mapping[str, float]
    body: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReply:
    """The reply to a probe request: a site's contexts, (E, D) float32.

    With a body they are heads, as in `Update`.
    """

    site: str
    probes: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The reply of a site that can't answer: a code of `f2l_fed.wire.refusals` alone."""

    site: str
    code: str
