"""A control service on loopback, its callers, and a federation's folder to ask about."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc

from f2l_fed.generator.serialization import save_generator
from server.control import client as control_client
from server.control.client import Connection, ControlError, connect
from server.control.service import serve
from server.federation.release import Release
from server.federation.release_registry import ReleaseRegistry
from server.pki.certificate_store import create_authority, issue
from server.rounds import state_files
from server.rounds.state import RoundState
from tests.support.small import small_generator
from tests.support.waiting import PATIENCE_S

LIMIT_S = PATIENCE_S
DONE = RoundState(
    number=1,
    step="done",
    parent="",
    sites=3,
    accepted=("site-1", "site-2"),
    rejected={"site-3": "no answer"},
    release="00001",
    promoted=True,
    seconds={"exchange": 1.5},
    bytes_up=1000,
    accuracy_after=0.75,
)
RUNNING = RoundState(number=2, step="exchange", parent="00001", sites=3)
FIRST = Release(
    id="00001",
    state="promoted",
    parent="",
    snapshot=1,
    sites=("site-1", "site-2"),
    records=("1/site-1/0", "1/site-2/0"),
    left_out={"site-3": "far from all others"},
    figures={"loss": 0.25},
    parameters=9,
)
SECOND = dataclasses.replace(
    FIRST, id="00002", state="candidate", parent="00001", snapshot=2, reasons=("worse",)
)
READS: dict[str, Callable[[Connection], Awaitable[Any]]] = {
    "Health": control_client.health,
    "ListRounds": control_client.list_rounds,
    "WatchRounds": lambda to: anext(control_client.watch_rounds(to)),
    "ListReleases": control_client.list_releases,
    "ShowRelease": lambda to: control_client.show_release(to, "00001"),
    "ListSites": control_client.list_sites,
    "ZooStats": control_client.zoo_stats,
    "ShowRun": control_client.show_run,
    "WatchEvents": lambda to: anext(control_client.watch_events(to)),
}
CHANGES: dict[str, Callable[[Connection], Awaitable[Any]]] = {
    "PromoteRelease": lambda to: control_client.promote(to, "00002"),
    "RollbackRelease": control_client.rollback,
    "AddSite": lambda to: control_client.add_site(to, "line-8"),
    "RemoveSite": lambda to: control_client.remove_site(to, "line-7"),
    "StartRound": control_client.start_rounds,
    "AbortRound": control_client.abort_round,
    "ResumeRound": control_client.resume_round,
}


def make_certificates(folder: Path) -> Path:
    """An authority with a server, admin-1, viewer-1, two sites, and an expired admin."""
    long_ago = datetime.now(UTC) - timedelta(days=400)
    create_authority(folder, now=long_ago)
    issue(folder, "server", "server")
    issue(folder, "admin-1", "admin")
    issue(folder, "viewer-1", "viewer")
    issue(folder, "line-7", "site")
    issue(folder, "localhost", "site")
    issue(folder, "expired", "admin", days=30, now=long_ago)
    return folder


def make_workdir(folder: Path) -> Path:
    """Two rounds and two releases."""
    (folder / "rounds").mkdir()
    state_files.save_state(folder / "rounds", DONE)
    state_files.save_state(folder / "rounds", RUNNING)
    for release in (FIRST, SECOND):
        home = folder / "releases" / release.id
        home.mkdir(parents=True)
        (home / "release.json").write_text(json.dumps(dataclasses.asdict(release)))
        save_generator(small_generator(), home / "generator.safetensors")
    return folder


def ask(
    workdir: Path,
    certificates: Path,
    who: str,
    question: Callable[[Connection], Awaitable[Any]],
    *,
    host: str = "127.0.0.1",
    **settings: Any,
) -> Any:
    """The answer of a new service to someone."""

    async def conversation() -> Any:
        async with (
            asyncio.timeout(LIMIT_S),
            serve(workdir, certificates, **settings) as port,
            connect(f"{host}:{port}", certificates, who) as to,
        ):
            return await question(to)

    return asyncio.run(conversation())


def status_of(error: ControlError) -> grpc.StatusCode:
    assert isinstance(error.__cause__, grpc.aio.AioRpcError)
    return error.__cause__.code()


def is_one_sentence(error: ControlError) -> bool:
    text = str(error)
    return text.endswith(".") and "\n" not in text and "Traceback" not in text


def states(workdir: Path) -> dict[str, str]:
    registry = ReleaseRegistry(workdir / "releases")
    return {id: registry.read(id).state for id in registry.ids()}
