"""The client of the control service, for administrators, viewers and their programs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from f2l_fed.core.addresses import split_address
from f2l_fed.core.proxies import proxy_to
from f2l_fed.errors import F2LError
from server.control.health import FORMER_NAMES
from server.control.proto import control_pb2 as pb
from server.control.proto.control_pb2_grpc import ControlStub
from server.control.reachability import fault
from server.control.run_messages import (
    ServerHealth,
    SiteRecord,
    event_of,
    health_of,
    run_of,
    site_of,
)
from server.pki.identity import Credentials
from server.scheduling.run_plan import RequestedRounds

if TYPE_CHECKING:
    # Loaded where they are needed: most commands can do without PyTorch.
    from f2l_fed.zoo import ZooStats
    from server.federation.release import Release
    from server.rounds.state import RoundState

PARTS = ("superlink", "gateway")
"""Parts that a server may supervise; it does not supervise an external gateway."""

_LARGEST_REPLY_BYTES = 4 * 1024 * 1024
_STARTING_S = 30.0


class ControlError(F2LError):
    """An answer of the control service that is a refusal or a failure, or no answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """An open connection to a control service.

    Args:
        address: ``host:port``.
        identity: Folder of the caller's identity.
        stub: Of its protocol.
        health: Of the standard protocol for health.
        timeout_s: Longest wait for an answer.
    """

    address: str
    identity: Path
    stub: Any
    health: Any
    timeout_s: float


@asynccontextmanager
async def connect(
    address: str, certificates: Path, name: str, *, timeout_s: float = 10.0
) -> AsyncIterator[Connection]:
    """Opens a connection for a block; the first call reaches the server.

    Args:
        address: ``host:port``, the host as in the server's certificate.
        certificates: The folder that holds the caller's identity.
        name: Of this identity.
        timeout_s: Longest wait for an answer.

    Raises:
        ConfigError: If the address is malformed or the identity can't be read.
    """
    host, port = split_address(address, "--server")
    identity = certificates / name
    own = Credentials.read(identity)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=own.authority, private_key=own.key, certificate_chain=own.certificate
    )
    options = (
        ("grpc.max_receive_message_length", _LARGEST_REPLY_BYTES),
        # gRPC would ask a proxy for this very machine too.
        ("grpc.enable_http_proxy", int(proxy_to(host, port) is not None)),
    )
    async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
        stub = ControlStub(channel)  # type: ignore[no-untyped-call]
        yield Connection(
            address=address,
            identity=identity,
            stub=stub,
            health=HealthStub(channel),
            timeout_s=timeout_s,
        )


async def health(to: Connection) -> ServerHealth:
    """Reads the server's version, start and release.

    Raises:
        ControlError: If the server refuses, fails or can't be reached; so do all calls below.
    """
    async with _explained(to):
        return health_of(await to.stub.Health(pb.HealthRequest(), timeout=to.timeout_s))


async def parts(to: Connection) -> dict[str, bool]:
    """Reads by the standard protocol whether each part that the server supervises works."""
    found = {part: await _serves(to, part) for part in PARTS}
    for former, part in FORMER_NAMES.items():
        if found[part] is None:
            found[part] = await _serves(to, former)
    return {part: serves for part, serves in found.items() if serves is not None}


async def seconds_ahead(to: Connection) -> float | None:
    """Seconds that this machine's clock is ahead of the server's; None from an older server."""
    async with _explained(to):
        call = to.health.Check(health_pb2.HealthCheckRequest(), timeout=to.timeout_s)
        date = dict(await call.initial_metadata()).get("date")
        now = time.time()
        await call
    return None if date is None else now - parsedate_to_datetime(str(date)).timestamp()


async def _serves(to: Connection, part: str) -> bool | None:
    """Whether a part works; None if the server knows none of this name."""
    request = health_pb2.HealthCheckRequest(service=part)
    async with _explained(to):
        try:
            answer = await to.health.Check(request, timeout=to.timeout_s)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            return None
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def list_rounds(to: Connection, *, first: int = 0) -> list[RoundState]:
    """Reads the rounds from a number on, oldest first."""
    from server.control.round_messages import round_of

    async with _explained(to):
        replies = to.stub.ListRounds(pb.ListRoundsRequest(first=first), timeout=to.timeout_s)
        return [round_of(message) async for message in replies]


async def watch_rounds(
    to: Connection, *, first: int = 0, duration_s: float = 3600.0
) -> AsyncIterator[RoundState]:
    """Yields the rounds from a number on, and each again when it changes.

    Args:
        first: The number.
        duration_s: Longest watch; the server ends it after an hour.
    """
    from server.control.round_messages import round_of

    async with _explained(to):
        replies = to.stub.WatchRounds(pb.WatchRoundsRequest(first=first), timeout=duration_s)
        try:
            async for message in replies:
                yield round_of(message)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise
        finally:
            replies.cancel()


async def list_releases(to: Connection) -> list[Release]:
    """Reads the releases, oldest first, without their `records`."""
    from server.control.round_messages import release_of

    async with _explained(to):
        replies = to.stub.ListReleases(pb.ListReleasesRequest(), timeout=to.timeout_s)
        return [release_of(message) async for message in replies]


async def show_release(to: Connection, id: str) -> Release:
    """Reads a release, without its `records`."""
    from server.control.round_messages import release_of

    async with _explained(to):
        request = pb.ShowReleaseRequest(id=id)
        return release_of(await to.stub.ShowRelease(request, timeout=to.timeout_s))


async def promote(to: Connection, id: str) -> Release:
    """Promotes a release, so that sites get it; returns it as promoted."""
    from server.control.round_messages import release_of

    async with _explained(to):
        request = pb.PromoteReleaseRequest(id=id)
        return release_of(await to.stub.PromoteRelease(request, timeout=to.timeout_s))


async def rollback(to: Connection) -> Release:
    """Promotes the release before the promoted one; returns it."""
    from server.control.round_messages import release_of

    async with _explained(to):
        request = pb.RollbackReleaseRequest()
        return release_of(await to.stub.RollbackRelease(request, timeout=to.timeout_s))


async def list_sites(to: Connection) -> list[SiteRecord]:
    """Reads the record of each site, sorted by name."""
    async with _explained(to):
        replies = to.stub.ListSites(pb.ListSitesRequest(), timeout=to.timeout_s)
        return [site_of(message) async for message in replies]


async def zoo_stats(to: Connection) -> ZooStats:
    """Counts the contents of the zoo."""
    from server.control.round_messages import zoo_of

    async with _explained(to):
        return zoo_of(await to.stub.ZooStats(pb.ZooStatsRequest(), timeout=to.timeout_s))


async def add_site(
    to: Connection, name: str, *, hours: int = 0, replace: bool = False, backbone: str = ""
) -> bytes:
    """Invites a site; returns its kit, one file that lets its holder register once.

    Args:
        name: Of the site.
        hours: Validity of the kit; 0 takes the server's setting.
        replace: Also for a registered site, whose key and certificate become invalid.
        backbone: Digest of the backbone whose file will follow in the kit; "" for none.
    """
    async with _explained(to):
        request = pb.AddSiteRequest(name=name, hours=hours, replace=replace, backbone=backbone)
        return bytes((await to.stub.AddSite(request, timeout=to.timeout_s)).kit)


async def remove_site(to: Connection, name: str) -> SiteRecord:
    """Removes a site for good; its next request is refused."""
    async with _explained(to):
        request = pb.RemoveSiteRequest(name=name)
        return site_of(await to.stub.RemoveSite(request, timeout=to.timeout_s))


async def show_run(to: Connection) -> RequestedRounds:
    """Reads the run that is under way and what comes after it."""
    async with _explained(to):
        return run_of(await to.stub.ShowRun(pb.ShowRunRequest(), timeout=to.timeout_s))


async def start_rounds(to: Connection, *, count: int = 1, sites: int = 0) -> RequestedRounds:
    """Starts rounds, one after the other.

    Args:
        count: Number of rounds.
        sites: Number of sites to wait for before each; 0 takes all that are registered.
    """
    async with _explained(to):
        request = pb.StartRoundRequest(rounds=count, sites=sites)
        return run_of(await to.stub.StartRound(request, timeout=_STARTING_S))


async def abort_round(to: Connection) -> RequestedRounds:
    """Ends the round that is under way or interrupted."""
    async with _explained(to):
        return run_of(await to.stub.AbortRound(pb.AbortRoundRequest(), timeout=_STARTING_S))


async def resume_round(to: Connection, *, sites: int = 0) -> RequestedRounds:
    """Resumes a round that was interrupted."""
    async with _explained(to):
        request = pb.ResumeRoundRequest(sites=sites)
        return run_of(await to.stub.ResumeRound(request, timeout=_STARTING_S))


async def watch_events(
    to: Connection, *, since_run: bool = False, duration_s: float = 3600.0
) -> AsyncIterator[dict[str, Any]]:
    """Yields the events of the federation as they are written.

    Args:
        since_run: Begins with the events since the last run was started.
        duration_s: Longest watch; the server ends it after an hour.
    """
    async with _explained(to):
        request = pb.WatchEventsRequest(since_run=since_run)
        replies = to.stub.WatchEvents(request, timeout=duration_s)
        try:
            async for message in replies:
                yield event_of(message)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise
        finally:
            replies.cancel()


@asynccontextmanager
async def _explained(to: Connection) -> AsyncIterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise _control_error(error, to) from error
        what, remedy = await asyncio.to_thread(fault, to.address, to.identity)
        raise ControlError(
            what or "the connection broke",
            where=to.address,
            remedy=remedy or "Try again; see f2l-admin doctor.",
        ) from error


def _control_error(error: grpc.aio.AioRpcError, to: Connection) -> ControlError:
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return ControlError(
            "the server did not answer in time",
            where=to.address,
            expected=f"an answer within {to.timeout_s:g} s",
        )
    return ControlError(error.details() or f"the call ended with {error.code().name}")
