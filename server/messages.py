"""Records of the federation as messages of the control service, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]

from f2l_fed.zoo import ZooStats
from server.proto import control_pb2 as pb
from server.releases import Release
from server.rounds import RoundState
from server.runs import Wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerHealth:
    """What a server that works says of itself.

    Args:
        version: Of the program.
        started: When the service came up, in UTC.
        release: The release that sites get; "" before the first.
    """

    version: str
    started: datetime
    release: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRecord:
    """How a site has done so far.

    Args:
        name: Of the site.
        accepted: Rounds whose update of it is in the zoo.
        rejected: Rounds that ended without one.
        last_round: The last of these rounds.
        last_rejection: Why that round has no update of it; "" if it has.
        state: "invited", "active" or "removed"; "" for one that was never registered.
        online: Whether it has been heard of lately.
        ends: When its certificate, or before registration its kit, ends; ISO 8601.
    """

    name: str
    accepted: int = 0
    rejected: int = 0
    last_round: int = 0
    last_rejection: str = ""
    state: str = ""
    online: bool = False
    ends: str = ""

    def registered(self, *, state: str, online: bool, ends: str) -> SiteRecord:
        """With what is known of its registration."""
        return dataclasses.replace(self, state=state, online=online, ends=ends)


def site_records(rounds: Iterable[RoundState]) -> list[SiteRecord]:
    """What rounds, oldest first, say of each site; sorted by name.

    >>> first = RoundState(number=1, step="done", parent="", sites=2, accepted=("a", "b"))
    >>> second = RoundState(number=2, step="done", parent="", sites=1, rejected={"a": "late"})
    >>> [(site.name, site.accepted, site.last_rejection) for site in site_records([first, second])]
    [('a', 1, 'late'), ('b', 1, '')]
    """
    records: dict[str, SiteRecord] = {}
    for state in rounds:
        reasons = {**dict.fromkeys(state.accepted, ""), **state.rejected}
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


def health_message(health: ServerHealth) -> pb.HealthReply:
    """Spells a server's health."""
    message = pb.HealthReply(version=health.version, release=health.release)
    message.started.FromDatetime(health.started)
    return message


def health_of(message: pb.HealthReply) -> ServerHealth:
    """Reads a server's health."""
    return ServerHealth(
        version=message.version,
        started=message.started.ToDatetime(tzinfo=UTC),
        release=message.release,
    )


def round_message(state: RoundState) -> pb.Round:
    """Spells a round."""
    return pb.Round(**dataclasses.asdict(state))


def round_of(message: pb.Round) -> RoundState:
    """Reads a round."""
    return RoundState(**_fields(message))


def release_message(release: Release) -> pb.Release:
    """Spells a release without its `records`, which grow with the zoo."""
    values = dataclasses.asdict(release)
    del values["records"]
    return pb.Release(**{**values, "state": release.state.upper()})


def release_of(message: pb.Release) -> Release:
    """Reads a release; its `records` are empty."""
    state: Any = pb.Release.State.Name(message.state).lower()
    return Release(**{**_fields(message), "state": state})


def site_message(site: SiteRecord) -> pb.Site:
    """Spells how a site has done."""
    return pb.Site(**dataclasses.asdict(site))


def site_of(message: pb.Site) -> SiteRecord:
    """Reads how a site has done."""
    return SiteRecord(**_fields(message))


def run_message(wanted: Wanted) -> pb.Run:
    """Spells what is being done about rounds."""
    return pb.Run(**dataclasses.asdict(wanted))


def run_of(message: pb.Run) -> Wanted:
    """Reads what is being done about rounds."""
    return Wanted(**_fields(message))


def event_of(message: pb.Event) -> dict[str, Any]:
    """Reads an event as it stands in ``events.jsonl``."""
    time = round(message.time.ToNanoseconds() / 1e9, 3)
    fields = MessageToDict(message.fields)
    # The protocol's numbers are all of one kind; whole ones were whole before.
    plain = {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in fields.items()
    }
    return {"event": message.name, "time": time, **plain}


def zoo_message(stats: ZooStats) -> pb.ZooStatsReply:
    """Spells how much the zoo holds."""
    return pb.ZooStatsReply(**dataclasses.asdict(stats))


def zoo_of(message: pb.ZooStatsReply) -> ZooStats:
    """Reads how much the zoo holds."""
    return ZooStats(**_fields(message))


def _fields(message: Any) -> dict[str, Any]:
    """Field values by name: maps as dict, lists as tuple."""
    values: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            value = dict(value)
        elif field.is_repeated:
            value = tuple(value)
        values[field.name] = value
    return values
