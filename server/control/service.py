"""The control service: administrators and viewers read and command a federation.

Only callers with a certificate of the federation's authority get through the TLS handshake; what
their role allows is in `RULES`.
"""

# ruff: noqa: N802, ARG002 - the methods' names and arguments are the protocol's

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import grpc
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

import f2l_fed
from f2l_fed.errors import ConfigError
from f2l_fed.events import RELEASE_PROMOTED, EventLog
from f2l_fed.zoo import ZooStats
from server.control.authorization import MOST_CALLS, CallError, Guard, Rule, caller
from server.control.health import SERVICE as HEALTH
from server.control.health import HealthService
from server.control.operations import FederationServices, Operations
from server.control.proto import control_pb2 as pb
from server.control.proto.control_pb2_grpc import add_ControlServicer_to_server
from server.control.round_messages import release_message, round_message, zoo_message
from server.control.run_messages import ServerHealth, health_message
from server.federation.folder import Federation
from server.federation.release import Release
from server.federation.release_registry import ReleaseRegistry
from server.pki.expiry import expiry_warnings
from server.pki.identity import Credentials
from server.pki.revocation import Revocations
from server.rounds.state import RoundState
from server.rounds.state_files import load_states

_LOG = logging.getLogger("f2l.control")

LONGEST_WATCH_S = 3600.0
LARGEST_REQUEST_BYTES = 64 * 1024
LARGEST_REPLY_BYTES = 4 * 1024 * 1024

_POLL_S = 0.25
_GRACE_S = 1.0
_OPTIONS = (
    ("grpc.max_receive_message_length", LARGEST_REQUEST_BYTES),
    ("grpc.max_send_message_length", LARGEST_REPLY_BYTES),
    ("grpc.max_concurrent_streams", MOST_CALLS),
    # Two servers on one port would silently share the calls between them.
    ("grpc.so_reuseport", 0),
    ("grpc.server_handshake_timeout_ms", 10_000),
    # Detects watchers whose connection was lost.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)

_READ = Rule(roles=frozenset({"viewer", "admin"}), limit_s=30)
_CHANGE = Rule(roles=frozenset({"admin"}), limit_s=30)
_METHODS = {
    "Health": _READ,
    "ListRounds": _READ,
    "WatchRounds": Rule(roles=_READ.roles, limit_s=LONGEST_WATCH_S),
    "ListReleases": _READ,
    "ShowRelease": _READ,
    "ListSites": _READ,
    "ZooStats": _READ,
    "ShowRun": _READ,
    "WatchEvents": Rule(roles=_READ.roles, limit_s=LONGEST_WATCH_S),
    "AddSite": _CHANGE,
    "RemoveSite": _CHANGE,
    "StartRound": _CHANGE,
    "AbortRound": _CHANGE,
    "ResumeRound": _CHANGE,
    "PromoteRelease": _CHANGE,
    "RollbackRelease": _CHANGE,
}
_SERVICE = f"{pb.DESCRIPTOR.package}.Control"
RULES: Mapping[str, Rule] = {
    **{f"/{_SERVICE}/{method}": rule for method, rule in _METHODS.items()},
    f"/{HEALTH}/Check": _READ,
    f"/{HEALTH}/Watch": Rule(roles=_READ.roles, limit_s=LONGEST_WATCH_S),
}


class ControlService(Operations):
    """The service's methods; all access to the disk runs in a thread.

    Args:
        workdir: The federation's folder.
        services: Its services; None where the server only shows a folder.
    """

    def __init__(self, workdir: Path, services: FederationServices | None = None) -> None:
        super().__init__(workdir, services)
        self._releases = ReleaseRegistry(workdir / "releases")
        self._events = EventLog(path=workdir / "events.jsonl", clock=time.time)
        self._started = datetime.now(UTC)
        # Not an asyncio lock: a thread goes on when its call has been cancelled.
        self._changing = threading.Lock()

    async def Health(
        self, request: pb.HealthRequest, context: grpc.aio.ServicerContext
    ) -> pb.HealthReply:
        promoted = await asyncio.to_thread(self._releases.promoted)
        return health_message(
            ServerHealth(
                version=f2l_fed.__version__,
                started=self._started,
                release=promoted.id if promoted else "",
                problems=await asyncio.to_thread(self._problems),
            )
        )

    async def ListRounds(
        self, request: pb.ListRoundsRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.Round]:
        for state in await self._rounds(request.first):
            yield round_message(state)

    async def WatchRounds(
        self, request: pb.WatchRoundsRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.Round]:
        with self._watching(context):
            seen: dict[int, RoundState] = {}
            while True:
                for state in await self._rounds(request.first):
                    if seen.get(state.number) != state:
                        seen[state.number] = state
                        yield round_message(state)
                await asyncio.sleep(_POLL_S)

    async def ListReleases(
        self, request: pb.ListReleasesRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.Release]:
        for id in await asyncio.to_thread(self._releases.ids):
            yield release_message(await asyncio.to_thread(self._releases.read, id))

    async def ShowRelease(
        self, request: pb.ShowReleaseRequest, context: grpc.aio.ServicerContext
    ) -> pb.Release:
        return release_message(await asyncio.to_thread(self._known, request.id))

    async def PromoteRelease(
        self, request: pb.PromoteReleaseRequest, context: grpc.aio.ServicerContext
    ) -> pb.Release:
        def promote() -> Release:
            return self._releases.promote(self._known(request.id).id)

        return await self._change("promoted", promote, context)

    async def RollbackRelease(
        self, request: pb.RollbackReleaseRequest, context: grpc.aio.ServicerContext
    ) -> pb.Release:
        return await self._change("rolled back", self._releases.rollback, context)

    async def ZooStats(
        self, request: pb.ZooStatsRequest, context: grpc.aio.ServicerContext
    ) -> pb.ZooStatsReply:
        def stats() -> ZooStats:
            return Federation.open(self._workdir).zoo.stats()

        return zoo_message(await asyncio.to_thread(stats))

    def _problems(self) -> tuple[str, ...]:
        members = self._services.membership.problems if self._services else ()
        certificates = self._workdir / "certificates"
        return (*members, *expiry_warnings(certificates, datetime.now(UTC)))

    async def _rounds(self, first: int) -> list[RoundState]:
        states = await asyncio.to_thread(load_states, self._workdir / "rounds")
        return [state for state in states if state.number >= first]

    async def _change(
        self, how: str, act: Callable[[], Release], context: grpc.aio.ServicerContext
    ) -> pb.Release:
        who = caller(context).name

        def change() -> Release:
            with self._changing:
                release = act()
                self._events.emit(RELEASE_PROMOTED, release=release.id, by=who, how=how)
            return release

        release = await asyncio.to_thread(change)
        _LOG.info("%s: release %s is promoted now (%s)", who, release.id, how)
        return release_message(release)

    def _known(self, id: str) -> Release:
        # Looked up, not opened: the caller's text must not become a path.
        if id not in self._releases.ids():
            raise CallError(grpc.StatusCode.NOT_FOUND, "no such release", got=ascii(id[:80]))
        return self._releases.read(id)


@asynccontextmanager
async def serve(
    workdir: Path,
    certificates: Path,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    name: str = "server",
    rules: Mapping[str, Rule] = RULES,
    services: FederationServices | None = None,
    parts: Mapping[str, bool] | None = None,
) -> AsyncIterator[int]:
    """Serves a federation's folder until the block ends.

    Args:
        workdir: The federation's folder.
        certificates: The folder that holds the server's identity.
        host: Address to listen on.
        port: 0 for any that is free.
        name: Of the server's identity.
        rules: Roles and time limits, by full method name.
        services: The federation's services; None only shows the folder.
        parts: Whether each supervised part works, as it is now.

    Yields:
        The port.

    Raises:
        ConfigError: If the identity can't be read or the address can't be listened on.
    """
    own = Credentials.read(certificates / name)
    server = grpc.aio.server(
        interceptors=(Guard(rules, Revocations(certificates)),),
        options=_OPTIONS,
        maximum_concurrent_rpcs=MOST_CALLS,
    )
    add_ControlServicer_to_server(  # type: ignore[no-untyped-call]
        ControlService(workdir, services), server
    )
    add_HealthServicer_to_server(HealthService(_SERVICE, parts or {}), server)
    credentials = grpc.ssl_server_credentials(
        [(own.key, own.certificate)], root_certificates=own.authority, require_client_auth=True
    )
    try:
        bound: int = server.add_secure_port(f"{host}:{port}", credentials)
    except RuntimeError as error:
        raise ConfigError(
            "the service can't listen here",
            where=f"{host}:{port}",
            remedy="Choose a free port and an address of this machine, and check the certificates.",
        ) from error
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(_GRACE_S)
