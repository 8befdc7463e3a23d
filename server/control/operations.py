"""The control service's methods about sites, runs and events."""

# ruff: noqa: N802, ARG002 - the methods' names and arguments are the protocol's

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509

from f2l_fed.core.wording import number_of
from f2l_fed.errors import ConfigError, UsageError, shown
from f2l_fed.events import RUN_STARTED, current_name
from server.control.authorization import RoleLimit, caller
from server.control.proto import control_pb2 as pb
from server.control.proto.control_pb2_grpc import ControlServicer
from server.control.round_messages import site_records
from server.control.run_messages import SiteRecord, run_message, site_message
from server.membership.membership import Membership
from server.membership.site_registry import Enrolment
from server.rounds.state_files import load_states
from server.scheduling.run_scheduler import RunScheduler

MOST_WATCHES = 16
"""Watches of rounds and events at a time, for viewers and for administrators each."""

MOST_ROUNDS = 1000
LONGEST_KIT_HOURS = 24 * 90
_POLL_S = 0.25
_TAIL_BYTES = 2**20
_LONGEST_FIELD = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationServices:
    """The services of a running federation that the control service commands.

    Args:
        membership: Its sites.
        runs: Its rounds.
    """

    membership: Membership
    runs: RunScheduler


class Operations(ControlServicer):
    """Methods about sites, runs and events.

    Args:
        workdir: The federation's folder.
        services: Its services; None where the server only shows a folder.
    """

    def __init__(self, workdir: Path, services: FederationServices | None) -> None:
        self._workdir, self._services = workdir, services
        self._watches = RoleLimit(
            "too many rounds and events are being watched", viewer=MOST_WATCHES, admin=MOST_WATCHES
        )

    async def ListSites(
        self, request: pb.ListSitesRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.Site]:
        for site in await asyncio.to_thread(self._sites):
            yield site_message(site)

    async def AddSite(
        self, request: pb.AddSiteRequest, context: grpc.aio.ServicerContext
    ) -> pb.AddSiteReply:
        members = self._running().membership
        if request.hours > LONGEST_KIT_HOURS:
            raise ConfigError(
                "invalid validity of the kit",
                expected=f"at most {LONGEST_KIT_HOURS} hours",
                got=str(request.hours),
            )
        by = caller(context).name
        kit = await asyncio.to_thread(
            members.invite,
            request.name,
            by,
            hours=request.hours,
            replace=request.replace,
            backbone=request.backbone,
        )
        return pb.AddSiteReply(kit=kit)

    async def RemoveSite(
        self, request: pb.RemoveSiteRequest, context: grpc.aio.ServicerContext
    ) -> pb.Site:
        members, by = self._running().membership, caller(context).name
        await asyncio.to_thread(members.remove, request.name, by)
        sites = await asyncio.to_thread(self._sites)
        return site_message(next(site for site in sites if site.name == request.name))

    async def ShowRun(
        self, request: pb.ShowRunRequest, context: grpc.aio.ServicerContext
    ) -> pb.Run:
        return run_message(self._running().runs.requested())

    async def StartRound(
        self, request: pb.StartRoundRequest, context: grpc.aio.ServicerContext
    ) -> pb.Run:
        runs, by = self._running().runs, caller(context).name
        count = request.rounds or 1
        active = await asyncio.to_thread(self._active)
        sites = request.sites or active
        if not active:
            raise UsageError("no site has registered yet", remedy="Add sites with site add.")
        if count > MOST_ROUNDS or sites > active:
            raise UsageError(
                "invalid number of rounds or sites",
                expected=f"1 to {MOST_ROUNDS} rounds with at most the {active} registered sites",
                got=f"{number_of(count, 'round')} with {number_of(sites, 'site')}",
            )
        await asyncio.to_thread(self._running().membership.require_scales)
        return run_message(await runs.start(by, count=count, sites=sites))

    async def AbortRound(
        self, request: pb.AbortRoundRequest, context: grpc.aio.ServicerContext
    ) -> pb.Run:
        return run_message(await self._running().runs.abort(caller(context).name))

    async def ResumeRound(
        self, request: pb.ResumeRoundRequest, context: grpc.aio.ServicerContext
    ) -> pb.Run:
        runs, by = self._running().runs, caller(context).name
        return run_message(await runs.resume(by, sites=request.sites))

    async def WatchEvents(
        self, request: pb.WatchEventsRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.Event]:
        with self._watching(context):
            path = self._workdir / "events.jsonl"
            at = await asyncio.to_thread(_begin, path, since_run=request.since_run)
            while True:
                lines, at = await asyncio.to_thread(_lines_from, path, at)
                for line in lines:
                    if (message := _event(line)) is not None:
                        yield message
                await asyncio.sleep(_POLL_S)

    def _watching(self, context: grpc.aio.ServicerContext) -> AbstractContextManager[None]:
        return self._watches.held(caller(context).role)

    def _running(self) -> FederationServices:
        if self._services is None:
            raise UsageError("this server only shows a folder", remedy="Use f2l-server run.")
        return self._services

    def _active(self) -> int:
        return sum(site.state == "active" for site in self._running().membership.registry.all())

    def _sites(self) -> list[SiteRecord]:
        known = {site.name: site for site in site_records(load_states(self._workdir / "rounds"))}
        if self._services is None:
            return list(known.values())
        members = self._services.membership
        online = members.online()
        for site in members.registry.all():
            before = known.get(site.name) or SiteRecord(name=site.name)
            known[site.name] = before.registered(
                state=site.state, online=site.name in online, ends=_ends(site)
            )
        return [known[name] for name in sorted(known)]


def _ends(site: Enrolment) -> str:
    if site.state != "active":
        return site.expires if site.state == "invited" else ""
    certificate = x509.load_pem_x509_certificate(site.certificate.encode())
    return certificate.not_valid_after_utc.isoformat()


def _begin(path: Path, *, since_run: bool) -> int:
    """The offset in the file of events to begin at: the last start of a run, or the end."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            if not since_run:
                return end
            start = max(end - _TAIL_BYTES, 0)
            file.seek(start)
            tail = file.read()
    except FileNotFoundError:
        return 0
    found = tail.rfind(b'{"event": "' + RUN_STARTED.encode())
    return start + found if found >= 0 else end


def _lines_from(path: Path, at: int) -> tuple[list[bytes], int]:
    """Whole lines from an offset on, and the offset after them.

    A line longer than what is read at a time is passed over: an earlier version wrote texts of
    sites at any length.
    """
    try:
        with path.open("rb") as file:
            file.seek(at)
            text = file.read(_TAIL_BYTES)
    except FileNotFoundError:
        return [], at
    whole = text.rfind(b"\n") + 1
    if not whole and len(text) == _TAIL_BYTES:
        return [], at + len(text)
    return text[:whole].splitlines(), at + whole


def _event(line: bytes) -> pb.Event | None:
    """An event as a message; None for a torn or damaged line."""
    try:
        fields: dict[str, Any] = json.loads(line)
        message = pb.Event(name=current_name(fields.pop("event")))
        message.time.FromDatetime(datetime.fromtimestamp(fields.pop("time"), UTC))
        message.fields.update(
            {
                name: shown(value, _LONGEST_FIELD) if isinstance(value, str) else value
                for name, value in fields.items()
            }
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError):
        return None
    return message
