"""The state of a round and its transitions, which are pure.

The state says what has been decided; the updates themselves are in the zoo, which is written
first. So a round that was interrupted goes on at the step that its file names, and repeating a step
changes nothing. `server.rounds.state_files` reads and writes the file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Literal

from safetensors import SafetensorError

from f2l_fed.config import RoundConfig
from f2l_fed.core.wording import number_of
from f2l_fed.errors import F2LError, RoundError, is_disk_failure


class Interrupted(RoundError):
    """An interruption from outside the round, which can be resumed at its step."""


def is_transient(error: Exception) -> bool:
    """Whether an error may be gone the next time: a disk or a store refused something."""
    if isinstance(error, Interrupted):
        return False
    if isinstance(error, F2LError):
        return error.transient or isinstance(error.__cause__, SafetensorError)
    return is_disk_failure(error) or isinstance(error, SafetensorError)


Step = Literal["exchange", "retrain", "gate", "done", "failed"]
"""The next step of a round; "done" and "failed" are final."""

_IN_QUARANTINE = "in quarantine: "

_SHOWN = 5
"""Sites that the reason of a failed round names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundState:
    """The state of one round.

    Args:
        number: From 1.
        step: The next step; "done" and "failed" are final.
        parent: Release that made the candidates; "" in the first round.
        sites: Number of sites asked, including those that did not answer the introduction.
        accepted: Sites with an update in the zoo, or nothing left to learn.
        rejected: Sites without an update, each with the reason; a late site stays here, though
            its update is in the zoo by then.
        quarantined: Sites with an update in quarantine, each with the reason.
        release: Candidate release, once there is one.
        promoted: Whether it passed the gate.
        reason: Why the round failed or the release was rejected; "" otherwise.
        seconds: Time spent in each finished step.
        bytes_up: Bytes of parameters and numbers that sites sent.
        bytes_down: Bytes of candidates that were sent to sites.
        accuracy_before: Mean over the accepted sites that report it; 0 if none does.
        accuracy_after: Likewise, after fine-tuning.
    """

    number: int
    step: Step
    parent: str
    sites: int
    accepted: tuple[str, ...] = ()
    rejected: Mapping[str, str] = field(default_factory=dict)
    quarantined: Mapping[str, str] = field(default_factory=dict)
    release: str = ""
    promoted: bool = False
    reason: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    bytes_up: int = 0
    bytes_down: int = 0
    accuracy_before: float = 0.0
    accuracy_after: float = 0.0

    @property
    def is_final(self) -> bool:
        """Whether the round is over."""
        return self.step in ("done", "failed")


def with_quarantined(rejected: Mapping[str, str], quarantined: Mapping[str, str]) -> dict[str, str]:
    """Rejected and quarantined sites in one mapping, as round files and messages had them once.

    >>> with_quarantined({"a": "timeout"}, {"b": "a copy"})
    {'a': 'timeout', 'b': 'in quarantine: a copy'}
    """
    marked = {site: _IN_QUARANTINE + reason for site, reason in quarantined.items()}
    return dict(sorted({**rejected, **marked}.items()))


def without_quarantined(rejected: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The inverse of `with_quarantined`.

    >>> without_quarantined({"a": "timeout", "b": "in quarantine: a copy"})
    ({'a': 'timeout'}, {'b': 'a copy'})
    """
    quarantined = {
        site: reason.removeprefix(_IN_QUARANTINE)
        for site, reason in rejected.items()
        if reason.startswith(_IN_QUARANTINE)
    }
    return {s: reason for s, reason in rejected.items() if s not in quarantined}, quarantined


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeResult:
    """The result of an exchange; see `RoundState`.

    Args:
        asked: Number of sites, including those that joined during the exchange.
        unable: Number of those that have said that they can't take part; the quorum is of the
            others.
    """

    asked: int
    unable: int = 0
    accepted: tuple[str, ...]
    rejected: Mapping[str, str]
    quarantined: Mapping[str, str] = field(default_factory=dict)
    bytes_up: int
    bytes_down: int
    accuracy_before: float
    accuracy_after: float
    seconds: float


def begun(number: int, parent: str, sites: int) -> RoundState:
    """A round that has asked its sites."""
    return RoundState(number=number, step="exchange", parent=parent, sites=sites)


def exchanged(state: RoundState, exchange: ExchangeResult, config: RoundConfig) -> RoundState:
    """After the exchange: on to the retraining, or the end for want of a quorum.

    >>> some = ExchangeResult(asked=4, accepted=("a",), rejected={}, bytes_up=0, bytes_down=0,
    ...                       accuracy_before=0, accuracy_after=0, seconds=1)
    >>> exchanged(begun(1, "", 4), some, RoundConfig(quorum=0.5)).reason
    'updates of 1 of 4 sites were accepted, 2 are the quorum'
    >>> suspect = dataclasses.replace(some, quarantined={"b": "unlike the others"})
    >>> exchanged(begun(1, "", 4), suspect, RoundConfig(quorum=0.5)).reason.partition("; ")[2]
    '1 more is in quarantine, until released'
    >>> spent = dataclasses.replace(some, unable=3, rejected={"b": "its budget is spent"})
    >>> exchanged(begun(1, "", 4), spent, RoundConfig(quorum=0.5)).step
    'retrain'
    """
    _require(state, "exchange")
    # A share such as 0.55 is not exact; 100 sites are to need 55.
    able = exchange.asked - exchange.unable
    needed = max(ceil(config.quorum * able - 1e-9), 1)
    enough = len(exchange.accepted) >= needed
    of = number_of(able, "site") + (" that can take part" if exchange.unable else "")
    quorum = number_of(needed, "is", "are")
    accepted = f"updates of {len(exchange.accepted)} of {of} were accepted, {quorum} the quorum"
    if not able:
        accepted = "no site can take part as things are"
    more = len(exchange.quarantined)
    waiting = number_of(more, "more is", "more are")
    aside = f"; {waiting} in quarantine, until released" if more else ""
    aside += _why(exchange.rejected)
    return dataclasses.replace(
        state,
        step="retrain" if enough else "failed",
        sites=exchange.asked,
        accepted=exchange.accepted,
        rejected=dict(exchange.rejected),
        quarantined=dict(exchange.quarantined),
        bytes_up=exchange.bytes_up,
        bytes_down=exchange.bytes_down,
        accuracy_before=exchange.accuracy_before,
        accuracy_after=exchange.accuracy_after,
        reason="" if enough else accepted + aside,
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


def failed(state: RoundState, reason: str, minimum: int = 0) -> RoundState:
    """The end of a round that can't go on.

    Args:
        state: The round.
        reason: Why.
        minimum: Smallest number of sites in a retraining; one after fewer updates than that fails
            for want of the other sites, which are named.

    >>> few = RoundState(number=1, step="retrain", parent="", sites=2, rejected={"b": "no classes"})
    >>> failed(few, "too few sites.", 2).reason
    'too few sites; b: no classes'
    """
    if state.step == "retrain" and state.rejected and len(state.accepted) < minimum:
        reason = reason.removesuffix(".") + _why(state.rejected)
    return dataclasses.replace(state, step="failed", reason=reason)


def _why(rejected: Mapping[str, str]) -> str:
    """The first sites without an update with their reasons, to be added to a reason."""
    shown = "".join(f"; {site}: {text}" for site, text in list(rejected.items())[:_SHOWN])
    return shown + ("; and others" if len(rejected) > _SHOWN else "")


def _require(state: RoundState, step: Step) -> None:
    if state.step != step:
        raise RoundError(
            "the round is at another step",
            where=f"round {state.number}",
            expected=step,
            got=state.step,
        )
