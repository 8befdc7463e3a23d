"""Health, sites, runs and events as messages of the control service, and back.

Apart from `server.control.round_messages`, so that a command which adds a site does not load
PyTorch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]

from server.control.proto import control_pb2 as pb
from server.scheduling.run_plan import RequestedRounds


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerHealth:
    """The health of a server that answers.

    Args:
        version: Of the program.
        started: Start of the service, in UTC.
        release: The release that sites get; "" before the first.
        problems: Sites that the server keeps out although they are registered, certificates that
            end soon, and what to do.
    """

    version: str
    started: datetime
    release: str
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRecord:
    """The record of a site so far.

    Args:
        name: Of the site.
        accepted: Rounds whose update of it is in the zoo.
        rejected: Rounds that ended without one.
        last_round: The last of these rounds.
        last_rejection: Reason that this round has no update of it; "" if it has one.
        state: "invited", "active" or "removed"; "" for one that was never registered.
        online: Whether it has sent a request lately.
        ends: End of its certificate, or before registration of its kit; ISO 8601.
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
        """The same record with the site's registration."""
        return dataclasses.replace(self, state=state, online=online, ends=ends)


def health_message(health: ServerHealth) -> pb.HealthReply:
    """Writes a server's health as a message."""
    message = pb.HealthReply(
        version=health.version, release=health.release, problems=health.problems
    )
    message.started.FromDatetime(health.started)
    return message


def health_of(message: pb.HealthReply) -> ServerHealth:
    """Reads a server's health from a message."""
    return ServerHealth(
        version=message.version,
        started=message.started.ToDatetime(tzinfo=UTC),
        release=message.release,
        problems=tuple(message.problems),
    )


def site_message(site: SiteRecord) -> pb.Site:
    """Writes the record of a site as a message."""
    return pb.Site(**dataclasses.asdict(site))


def site_of(message: pb.Site) -> SiteRecord:
    """Reads the record of a site from a message."""
    return SiteRecord(**fields_of(message))


def run_message(requested: RequestedRounds) -> pb.Run:
    """Writes the requested rounds as a message."""
    return pb.Run(**dataclasses.asdict(requested))


def run_of(message: pb.Run) -> RequestedRounds:
    """Reads the requested rounds from a message."""
    return RequestedRounds(**fields_of(message))


def event_of(message: pb.Event) -> dict[str, Any]:
    """Reads an event from a message, with the fields of ``events.jsonl``."""
    time = round(message.time.ToNanoseconds() / 1e9, 3)
    fields = MessageToDict(message.fields)
    # The protocol's numbers are all of one kind; whole ones were whole before.
    plain = {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in fields.items()
    }
    return {"event": message.name, "time": time, **plain}


def fields_of(message: Any) -> dict[str, Any]:
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
