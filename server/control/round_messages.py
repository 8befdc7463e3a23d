"""Rounds, releases and zoo as messages of the control service, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from f2l_fed.errors import shown
from f2l_fed.zoo import ZooStats
from server.control.proto import control_pb2 as pb
from server.control.run_messages import SiteRecord, fields_of
from server.federation.release import Release
from server.rounds.state import RoundState, with_quarantined, without_quarantined

_REASONS_BYTES = 2**21
"""Most bytes of all reasons in a message; it may have twice as many, names and marks included."""


def site_records(rounds: Iterable[RoundState]) -> list[SiteRecord]:
    """The record of each site in some rounds, oldest first; sorted by name.

    >>> first = RoundState(number=1, step="done", parent="", sites=2, accepted=("a", "b"))
    >>> second = RoundState(number=2, step="done", parent="", sites=1, rejected={"a": "late"})
    >>> [(site.name, site.accepted, site.last_rejection) for site in site_records([first, second])]
    [('a', 1, 'late'), ('b', 1, '')]
    """
    records: dict[str, SiteRecord] = {}
    for state in rounds:
        kept_out = with_quarantined(state.rejected, state.quarantined)
        reasons = {**dict.fromkeys(state.accepted, ""), **kept_out}
        for name, reason in reasons.items():
            before = records.get(name)
            accepted = name in state.accepted
            records[name] = SiteRecord(
                name=name,
                accepted=(before.accepted if before else 0) + accepted,
                rejected=(before.rejected if before else 0) + (not accepted),
                last_round=state.number,
                last_rejection="" if accepted else reason,
            )
    return [records[name] for name in sorted(records)]


def _fitting(reasons: Mapping[str, str]) -> dict[str, str]:
    """Reasons by site, each cut to its share of a message."""
    most = _REASONS_BYTES // max(len(reasons), 1)
    return {site: _cut(reason, most) for site, reason in reasons.items()}


def _cut(text: str, most: int) -> str:
    """A text cut to so many bytes, as protocol buffers count them."""
    seen = shown(text)
    data = seen.encode()
    return seen if len(data) <= most else data[:most].decode(errors="ignore")


def round_message(state: RoundState) -> pb.Round:
    """Spells a round; its quarantined sites are among the rejected ones, with a mark.

    The more sites there are, the shorter their reasons, so that all fit into one message.
    """
    values = dataclasses.asdict(state)
    values["rejected"] = _fitting(with_quarantined(values["rejected"], values.pop("quarantined")))
    return pb.Round(**values)


def round_of(message: pb.Round) -> RoundState:
    """Reads a round."""
    values = fields_of(message)
    rejected, quarantined = without_quarantined(values["rejected"])
    return RoundState(**{**values, "rejected": rejected, "quarantined": quarantined})


_AT_THE_SERVER = ("records", "chain", "body_sites", "temperatures", "families", "scales")


def release_message(release: Release) -> pb.Release:
    """Writes a release as a message, without what grows with zoo and rounds, or serves sites."""
    values = dataclasses.asdict(release)
    for name in _AT_THE_SERVER:
        del values[name]
    values["left_out"] = _fitting(values["left_out"])
    return pb.Release(**{**values, "state": release.state.upper()})


def release_of(message: pb.Release) -> Release:
    """Reads a release from a message; what `release_message` leaves out is empty."""
    state: Any = pb.Release.State.Name(message.state).lower()
    return Release(**{**fields_of(message), "state": state})


def zoo_message(stats: ZooStats) -> pb.ZooStatsReply:
    """Writes the zoo's counts as a message."""
    return pb.ZooStatsReply(**dataclasses.asdict(stats))


def zoo_of(message: pb.ZooStatsReply) -> ZooStats:
    """Reads the zoo's counts from a message."""
    return ZooStats(**fields_of(message))
