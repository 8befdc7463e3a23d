"""The control service keeps room for administrators, and forgets nobody whose time is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from f2l_fed.events import EventLog
from server.control import client as control_client
from server.control.client import Connection, ControlError, connect
from server.control.service import serve
from server.pki.certificate_store import issue
from server.pki.identity import Credentials
from server.pki.revocation import revoke
from tests.attacks.peers.silent_caller import announced
from tests.support.control_service import LIMIT_S, make_certificates, make_workdir, status_of

HEALTH = "/f2l_fed.control.v1.Control/Health"
WATCH = "/f2l_fed.control.v1.Control/WatchRounds"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    return make_workdir(tmp_path)


@asynccontextmanager
async def opened(port: int, certificates: Path, who: str) -> AsyncIterator[Connection]:
    async with connect(f"localhost:{port}", certificates, who, timeout_s=LIMIT_S) as to:
        yield to


def played(workdir: Path, certificates: Path, attack: Callable[[int], Awaitable[None]]) -> None:
    async def play() -> None:
        async with asyncio.timeout(LIMIT_S), serve(workdir, certificates) as port:
            await attack(port)

    asyncio.run(play())


@pytest.mark.parametrize("method", [HEALTH, WATCH, "/grpc.health.v1.Health/Watch"])
@pytest.mark.parametrize("who", ["a removed site", "viewer-1"])
def test_calls_without_a_request_lock_no_administrator_out(workdir, certificates, who, method):
    if who == "a removed site":
        who = "line-7"
        revoke(certificates, [Credentials.read(certificates / who).serial])

    async def attack(port: int) -> None:
        async with announced(port, certificates / who, method, 64):
            async with opened(port, certificates, "admin-1") as to:
                assert (await control_client.health(to)).release == "00001"

    played(workdir, certificates, attack)


def test_viewers_watches_leave_administrators_theirs(workdir, certificates):
    async def attack(port: int) -> None:
        async with AsyncExitStack() as stack:
            eve = await stack.enter_async_context(opened(port, certificates, "viewer-1"))
            watches = [control_client.watch_rounds(eve) for _ in range(16)]
            await asyncio.gather(*(anext(watch) for watch in watches))
            probes = [eve.health.Watch(health_pb2.HealthCheckRequest()) for _ in range(8)]
            await asyncio.gather(*(probe.read() for probe in probes))
            to = await stack.enter_async_context(opened(port, certificates, "admin-1"))
            assert (await anext(control_client.watch_rounds(to))).number == 1
            assert await to.health.Watch(health_pb2.HealthCheckRequest()).read()

    played(workdir, certificates, attack)


def test_whoever_is_revoked_while_watching_hears_nothing_more(workdir, certificates):
    mallory = issue(certificates, "mallory", "viewer")
    log = EventLog(path=workdir / "events.jsonl", clock=lambda: 0.0)

    async def attack(port: int) -> None:
        async with opened(port, certificates, "mallory") as to:
            events = control_client.watch_events(to)
            heard = asyncio.create_task(anext(events))
            while not heard.done():
                log.emit("round.started", round=1)
                await asyncio.sleep(0.3)
            revoke(certificates, [Credentials.read(mallory).serial])
            log.emit("round.started", round=2)
            told: list[int] = []
            with pytest.raises(ControlError, match="revoked"):
                told += [event["round"] async for event in events]
            assert 2 not in told

    played(workdir, certificates, attack)


@pytest.mark.slow
def test_a_certificate_that_expires_during_a_connection_is_refused(workdir, certificates):
    soon = datetime.now(UTC) - timedelta(days=1) + timedelta(seconds=10)
    issue(certificates, "leaving", "admin", days=1, now=soon)

    async def attack(port: int) -> None:
        async with opened(port, certificates, "leaving") as to:
            assert (await control_client.health(to)).release == "00001"
            await asyncio.sleep(11)
            with pytest.raises(ControlError, match="expired") as refusal:
                await control_client.health(to)
            assert status_of(refusal.value) is grpc.StatusCode.UNAUTHENTICATED

    played(workdir, certificates, attack)
