"""The messages between server and sites.

Down go requests: `ProbeRequest` to a site of which the server has no context yet, and `Task` with
candidate networks. Up come replies: `ProbeReply`, `Update`, or a `Refusal`.
`f2l_fed.wire.packing` turns them into Flower's records and back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from f2l_fed.local_training.config import Recipe

if TYPE_CHECKING:
    from torch import Tensor

PROBE_ACTION = "query.probe"
TASK_ACTION = "train.task"

NUMBERS = ("examples", "steps", "loss_before", "loss_after", "accuracy_before", "accuracy_after")
"""Names of the numbers that an update may declare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The part of every request from which a site builds the same network.

    Args:
        lineage: The lineage, which names the anchor.
        target: Name of the target network.
        classes: Number of its outputs.
        input_shape: Shape of its inputs.
        layout: Digest of its layout.
        episodes: Number of probes that the site makes, each on its own draw of examples.
        shots: Support examples per class for a probe.
        probe: Recipe of a probe.
        shared_labels: Whether label k means the same at every site.
        nearest: Whether the networks of other sites are handed out as they are, as candidates.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRequest:
    """A request for a site's probes alone.

    Args:
        frame: The network.
        anchor: (D,) float32, the start of the probes; None for the lineage's first anchor, which
            the site rebuilds.
    """

    frame: Frame
    anchor: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A request to fine-tune the best of some candidates and to send back the result.

    Args:
        frame: The network.
        anchor: As in `ProbeRequest`.
        round: Number of the round, from 1.
        release: The release that made the candidates; "" for the anchor.
        recipe: Recipe of the fine-tuning.
        candidates: For each episode, (D,) float32 by kind ("prior", "sample-0", …); the site
            fine-tunes the best of each. Empty means one network, from the lineage's first anchor.
    """

    frame: Frame
    anchor: Tensor | None
    round: int
    release: str
    recipe: Recipe
    candidates: tuple[Mapping[str, Tensor], ...]


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
    """

    site: str
    round: int
    chosen: tuple[str, ...]
    weights: Tensor
    probes: Tensor
    numbers: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReply:
    """The reply to a probe request: a site's contexts, (E, D) float32."""

    site: str
    probes: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The reply of a site whose policy forbids the request, or that failed: a code alone."""

    site: str
    code: str
