"""TODO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from f2l_fed.local_training.config import Recipe

PROBE_ACTION = "query.probe"


TASK_ACTION = "train.task"


NUMBERS = ("examples", "steps", "loss_before", "loss_after", "accuracy_before", "accuracy_after")


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What every request says, so that a site can build the same network.

    Args:
        lineage: Names the anchor.
        target: Name of the target network.
        classes: Its outputs.
        input_shape: Shape of its inputs.
        layout: Digest of its layout.
        episodes: Probes that the site makes, each on its own draw of examples.
        shots: Support examples per class for a probe.
        probe: The probe's recipe.
    """

    lineage: str
    target: str
    classes: int
    input_shape: tuple[int, ...]
    layout: str
    episodes: int
    shots: int
    probe: Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRequest:
    """Down: send the probes alone.

    Args:
        frame: What to build.
        anchor: (D,) float32, where the probes start; None for the lineage's first anchor, which
            the site rebuilds.
    """

    frame: Frame
    anchor: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Down: start from the best of these, fine-tune, send back what became of it.

    Args:
        frame: What to build.
        anchor: As in `ProbeRequest`.
        round: Number of the round, from 1.
        release: The release that made the candidates; "" for the anchor.
        recipe: How to fine-tune.
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
    """Up: what a site sends, and nothing else.

    Args:
        site: The name the site goes by; trusted only where names are not bound to keys.
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
    """Up: a site's contexts alone, (E, D) float32; a new site's first answer."""

    site: str
    probes: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Up: the site's policy forbids what was asked, or it failed; a code and nothing more."""

    site: str
    code: str
