"""A round as a state machine: pure transitions, one file per round.

The state says what has been decided; what has come in is in the zoo, which is written first. So a
round that was interrupted goes on where its file says, and repeating a step changes nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Literal

from safetensors import SafetensorError

from f2l_fed.config import RoundConfig
from f2l_fed.errors import F2LError, RoundError, is_disk_failure


class Interrupted(RoundError):
    """Something outside the round ended it for now; it can be resumed at its step."""


def is_passing(error: Exception) -> bool:
    """Whether it was a disk or a store, and nothing that would be the same the next time."""
    if isinstance(error, Interrupted):
        return False
    if isinstance(error, F2LError):
        return error.transient or isinstance(error.__cause__, SafetensorError)
    return is_disk_failure(error) or isinstance(error, SafetensorError)


Step = Literal["exchange", "retrain", "gate", "done", "failed"]
IN_QUARANTINE = "in quarantine: "
"""What the reasons of those that were put aside begin with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundState:
    """One round.

    Args:
        number: From 1.
        step: What comes next; "done" and "failed" are final.
        parent: Release that made the candidates; "" in the first round.
        sites: Number of sites asked, those too that did not even introduce themselves.
        accepted: Sites whose update is in the zoo.
        rejected: Sites without one, each with the reason; a late one stays here, though its
            update is in the zoo by then.
        release: Candidate release, once there is one.
        promoted: Whether it passed the gate.
        reason: Why the round failed or the release was held; "" otherwise.
        seconds: Time spent in each finished step.
        bytes_up: Bytes of parameters and numbers that sites sent.
        bytes_down: Bytes of candidates that they were sent.
        accuracy_before: Mean over the accepted sites, of those that tell; 0 if none.
        accuracy_after: Likewise, after fine-tuning.
    """

    number: int
    step: Step
    parent: str
    sites: int
    accepted: tuple[str, ...] = ()
    rejected: Mapping[str, str] = field(default_factory=dict)
    release: str = ""
    promoted: bool = False
    reason: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    bytes_up: int = 0
    bytes_down: int = 0
    accuracy_before: float = 0.0
    accuracy_after: float = 0.0

    @property
    def quarantined(self) -> int:
        """How many of the rejected are in quarantine."""
        return _aside(self.rejected)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeResult:
    """What an exchange brought.

    Args:
        asked: Number of sites, those that joined meanwhile too.
    """

    asked: int
    accepted: tuple[str, ...]
    rejected: Mapping[str, str]
    bytes_up: int
    bytes_down: int
    accuracy_before: float
    accuracy_after: float
    seconds: float


def begun(number: int, parent: str, sites: int) -> RoundState:
    """A round that has asked its sites."""
    return RoundState(number=number, step="exchange", parent=parent, sites=sites)


def exchanged(state: RoundState, exchange: ExchangeResult, config: RoundConfig) -> RoundState:
    """After the sites' answers: on to the retraining, or the end for want of a quorum.

    >>> some = Exchange(asked=4, accepted=("a",), rejected={}, bytes_up=0, bytes_down=0,
    ...                 accuracy_before=0, accuracy_after=0, seconds=1)
    >>> exchanged(begun(1, "", 4), some, RoundConfig(quorum=0.5)).reason
    'updates of 1 of 4 sites were accepted, 2 are the quorum'
    >>> doubtful = dataclasses.replace(some, rejected={"b": f"{IN_QUARANTINE}unlike the others"})
    >>> exchanged(begun(1, "", 4), doubtful, RoundConfig(quorum=0.5)).reason.partition("; ")[2]
    '1 more are in quarantine, where they can be released'
    """
    _require(state, "exchange")
    # A share such as 0.55 is not exact; 100 sites are to need 55.
    needed = ceil(config.quorum * exchange.asked - 1e-9)
    enough = len(exchange.accepted) >= max(needed, 1)
    accepted = f"{len(exchange.accepted)} of {exchange.asked} sites were accepted"
    more = _aside(exchange.rejected)
    aside = f"; {more} more are in quarantine, where they can be released" if more else ""
    return dataclasses.replace(
        state,
        step="retrain" if enough else "failed",
        sites=exchange.asked,
        accepted=exchange.accepted,
        rejected=dict(exchange.rejected),
        bytes_up=exchange.bytes_up,
        bytes_down=exchange.bytes_down,
        accuracy_before=exchange.accuracy_before,
        accuracy_after=exchange.accuracy_after,
        reason="" if enough else f"updates of {accepted}, {needed} are the quorum{aside}",
        seconds={**state.seconds, "exchange": exchange.seconds},
    )


def retrained(state: RoundState, release: str, seconds: float) -> RoundState:
    """After the retraining: on to the gate; RoundError if the round is at another step."""
    _require(state, "retrain")
    spent = {**state.seconds, "retrain": seconds}
    return dataclasses.replace(state, step="gate", release=release, seconds=spent)


def judged(state: RoundState, reasons: tuple[str, ...]) -> RoundState:
    """After the gate: done, with the release promoted unless there are reasons against it."""
    _require(state, "gate")
    return dataclasses.replace(state, step="done", promoted=not reasons, reason="; ".join(reasons))


def failed(state: RoundState, reason: str) -> RoundState:
    """The end of a round that can't go on."""
    return dataclasses.replace(state, step="failed", reason=reason)


def _aside(rejected: Mapping[str, str]) -> int:
    return sum(reason.startswith(IN_QUARANTINE) for reason in rejected.values())


def _require(state: RoundState, step: Step) -> None:
    if state.step != step:
        raise RoundError(
            "the round is at another step",
            where=f"round {state.number}",
            expected=step,
            got=state.step,
        )
