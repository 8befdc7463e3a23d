"""The answers of the control service, on loopback through its real client."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from f2l_fed.config import FederationConfig
from f2l_fed.errors import ConfigError
from f2l_fed.zoo import NewRecord
from server.control import client as control_client
from server.control.client import Connection, ControlError, connect
from server.control.service import serve
from server.federation.folder import Federation
from server.rounds import state_files
from server.rounds.state import RoundState
from tests.support.control_service import (
    CHANGES,
    DONE,
    FIRST,
    LIMIT_S,
    RUNNING,
    SECOND,
    ask,
    is_one_sentence,
    make_certificates,
    make_workdir,
    states,
    status_of,
)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("identities") / "certificates")


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    return make_workdir(tmp_path)


@pytest.mark.parametrize("name", ["admin-1", "viewer-1"])
def test_admins_and_viewers_read(workdir: Path, certificates: Path, name: str) -> None:
    async def everything(to: Connection) -> list[Any]:
        return [
            await control_client.health(to),
            await control_client.list_rounds(to),
            await control_client.list_rounds(to, first=2),
            await control_client.list_releases(to),
            await control_client.show_release(to, "00002"),
            await control_client.list_sites(to),
        ]

    health, all_rounds, last, releases, shown, sites = ask(workdir, certificates, name, everything)
    assert (health.release, health.version) == ("00001", "0.1.0")
    assert abs(datetime.now(UTC) - health.started) < timedelta(minutes=1)
    assert (all_rounds, last) == ([DONE, RUNNING], [RUNNING])
    without_records = [dataclasses.replace(r, records=()) for r in (FIRST, SECOND)]
    assert releases == without_records
    assert shown == without_records[1]
    assert [(s.name, s.accepted, s.last_rejection) for s in sites] == [
        ("site-1", 1, ""),
        ("site-2", 1, ""),
        ("site-3", 0, "no answer"),
    ]


def test_the_zoo_is_counted(workdir: Path, certificates: Path) -> None:
    zoo = Federation.create(workdir, FederationConfig(zoo="elsewhere/zoo")).zoo
    row = np.ones(zoo.manifest.weight_dim, np.float32)
    zoo.append([NewRecord(key="1/a/0", site="a", round=1, weights=row, context=row)])
    assert (workdir / "elsewhere/zoo/zoo.json").exists()
    stats = ask(workdir, certificates, "viewer-1", control_client.zoo_stats)
    assert stats == zoo.stats()
    assert stats.records == 1


def test_an_admin_promotes_and_rolls_back_and_it_is_on_record(
    workdir: Path, certificates: Path
) -> None:
    promoted = ask(workdir, certificates, "admin-1", CHANGES["PromoteRelease"])
    assert (promoted.id, promoted.state) == ("00002", "promoted")
    assert states(workdir) == {"00001": "retired", "00002": "promoted"}
    back = ask(workdir, certificates, "admin-1", CHANGES["RollbackRelease"])
    assert (back.id, back.state) == ("00001", "promoted")
    assert states(workdir) == {"00001": "promoted", "00002": "retired"}
    events = [json.loads(line) for line in (workdir / "events.jsonl").read_text().splitlines()]
    assert [(e["event"], e["release"], e["by"], e["how"]) for e in events] == [
        ("release.promoted", "00002", "admin-1", "promoted"),
        ("release.promoted", "00001", "admin-1", "rolled back"),
    ]


def test_a_watch_shows_what_is_and_then_each_change(workdir: Path, certificates: Path) -> None:
    finished = dataclasses.replace(RUNNING, step="done", accepted=("site-1",))

    async def watch(to: Connection) -> list[RoundState]:
        seen = []
        async for state in control_client.watch_rounds(to, duration_s=LIMIT_S):
            seen.append(state)
            if state == RUNNING:
                state_files.save_state(workdir / "rounds", finished)
            if state == finished:
                break
        return seen

    assert ask(workdir, certificates, "viewer-1", watch) == [DONE, RUNNING, finished]


@pytest.mark.parametrize("id", ["00009", "../releases/00001", "", "1\n2", "é" * 500])
def test_an_unknown_release_is_not_found(workdir: Path, certificates: Path, id: str) -> None:
    before = states(workdir)
    for question in (control_client.show_release, control_client.promote):
        with pytest.raises(ControlError, match=r"^no such release: got '") as refusal:
            ask(workdir, certificates, "admin-1", lambda to, q=question: q(to, id))
        assert status_of(refusal.value) is grpc.StatusCode.NOT_FOUND
        assert is_one_sentence(refusal.value)
    assert states(workdir) == before


def test_a_state_that_forbids_it_is_told_as_it_is(workdir: Path, certificates: Path) -> None:
    with pytest.raises(ControlError, match="no earlier release to go back to") as refusal:
        ask(workdir, certificates, "admin-1", control_client.rollback)
    assert status_of(refusal.value) is grpc.StatusCode.FAILED_PRECONDITION
    (workdir / "rounds" / "00002.json").write_text("{")
    with pytest.raises(ControlError, match="the round's file is damaged") as refusal:
        ask(workdir, certificates, "viewer-1", control_client.list_rounds)
    assert status_of(refusal.value) is grpc.StatusCode.FAILED_PRECONDITION


def test_an_unexpected_failure_is_in_the_log_and_not_in_the_answer(
    workdir: Path, certificates: Path, caplog: pytest.LogCaptureFixture
) -> None:
    beyond_protocol = dataclasses.replace(RUNNING, bytes_up=-1)
    state_files.save_state(workdir / "rounds", beyond_protocol)
    with pytest.raises(ControlError) as failure:
        ask(workdir, certificates, "viewer-1", control_client.list_rounds)
    assert status_of(failure.value) is grpc.StatusCode.INTERNAL
    assert str(failure.value) == "The server failed to answer; its log says why."
    assert "Traceback" in caplog.text
    assert "ListRounds failed" in caplog.text


def test_a_server_that_is_gone_is_reported_with_its_address(
    workdir: Path, certificates: Path
) -> None:
    async def call_after_the_end() -> None:
        async with asyncio.timeout(LIMIT_S):
            async with serve(workdir, certificates) as port:
                pass
            async with connect(f"127.0.0.1:{port}", certificates, "admin-1") as to:
                await control_client.health(to)

    with pytest.raises(ControlError, match=r"^127\.0\.0\.1:\d+: nothing listens there"):
        asyncio.run(call_after_the_end())


def test_a_server_that_says_nothing_is_given_up(certificates: Path) -> None:
    async def call(port: int) -> None:
        address = f"127.0.0.1:{port}"
        async with connect(address, certificates, "admin-1", timeout_s=0.3) as to:
            await control_client.health(to)

    with (
        closing(socket.create_server(("127.0.0.1", 0))) as silent,
        pytest.raises(ControlError, match=r"did not answer in time: expected .* within 0\.3"),
    ):
        asyncio.run(asyncio.wait_for(call(silent.getsockname()[1]), LIMIT_S))


def test_a_missing_identity_and_a_taken_port_are_configuration_errors(
    workdir: Path, certificates: Path
) -> None:
    with pytest.raises(ConfigError, match=r"the identity can't be read: expected ca\.crt"):
        ask(workdir, certificates, "nobody", control_client.health)
    with pytest.raises(ConfigError, match="the identity can't be read"):
        ask(workdir, certificates, "admin-1", control_client.health, name="nobody")
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as taken,
        pytest.raises(ConfigError, match="can't listen here"),
    ):
        ask(workdir, certificates, "admin-1", control_client.health, port=taken.getsockname()[1])
