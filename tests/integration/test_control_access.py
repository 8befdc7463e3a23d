"""Access to the control service, and the limits of its use."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import subprocess
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2 as pb_health

from server.control import client as control_client
from server.control import health
from server.control.client import Connection, ControlError, connect
from server.control.proto import control_pb2 as pb
from server.control.service import LARGEST_REQUEST_BYTES, RULES, serve
from server.pki.certificate_store import create_authority, issue
from server.pki.identity import Credentials
from server.rounds.state import RoundState
from tests.support.central import command
from tests.support.control_service import (
    CHANGES,
    DONE,
    READS,
    RUNNING,
    ask,
    is_one_sentence,
    make_certificates,
    make_workdir,
    states,
    status_of,
)
from tests.support.waiting import PATIENCE_S


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("identities") / "certificates")


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    return make_workdir(tmp_path)


def test_every_method_has_a_rule_and_a_question_here() -> None:
    methods = {method.name for method in pb.DESCRIPTOR.services_by_name["Control"].methods}
    health = {f"/grpc.health.v1.Health/{method}" for method in ("Check", "Watch")}
    assert {f"/f2l_fed.control.v1.Control/{method}" for method in methods} | health == set(RULES)
    assert methods == {*READS, *CHANGES}


@pytest.mark.parametrize(
    ("name", "method"),
    [("viewer-1", method) for method in CHANGES]
    + [("line-7", method) for method in READS | CHANGES],
)
def test_a_role_without_the_right_is_refused(
    workdir: Path, certificates: Path, name: str, method: str
) -> None:
    before = states(workdir)
    with pytest.raises(ControlError, match=f"{method} is not for this role: expected") as refusal:
        ask(workdir, certificates, name, (READS | CHANGES)[method])
    assert status_of(refusal.value) is grpc.StatusCode.PERMISSION_DENIED
    assert is_one_sentence(refusal.value)
    assert states(workdir) == before


def health_of(
    workdir: Path, certificates: Path, who: str, name: str, parts: dict[str, bool]
) -> str:
    async def question(to: Connection) -> str:
        answer = await to.health.Check(
            pb_health.HealthCheckRequest(service=name), timeout=PATIENCE_S
        )
        return str(pb_health.HealthCheckResponse.ServingStatus.Name(answer.status))

    return str(ask(workdir, certificates, who, question, parts=parts))


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("", "NOT_SERVING"),
        ("superlink", "SERVING"),
        ("gateway", "NOT_SERVING"),
        ("front", "NOT_SERVING"),  # its former name
        ("f2l_fed.control.v1.Control", "SERVING"),
    ],
)
def test_a_viewers_probe_learns_how_each_part_stands(workdir, certificates, name, status):
    parts = {"superlink": True, "gateway": False}
    assert health_of(workdir, certificates, "viewer-1", name, parts) == status


def test_the_command_says_what_is_down_and_ends_with_1(workdir, certificates):
    async def asked() -> subprocess.CompletedProcess[str]:
        parts = {"superlink": False, "gateway": True}
        async with serve(workdir, certificates, parts=parts) as port:
            to = ("--server", f"127.0.0.1:{port}", "--certificates", str(certificates))
            words = ("f2l-admin", *to, "--name", "viewer-1", "health")
            return await asyncio.to_thread(command, *words)

    done = asyncio.run(asked())
    assert (done.returncode, done.stdout) == (1, "superlink is down, gateway works\n")


def test_the_doctor_shows_a_server_and_the_connection_without_secrets(
    workdir, certificates, monkeypatch
):
    monkeypatch.setenv("https_proxy", "http://ann:secret-word@127.0.0.1:9")
    logs = workdir / "flower"
    logs.mkdir(exist_ok=True)
    key = (certificates / "admin-1" / "tls.key").read_text()
    (logs / "superlink.log").write_text(
        f"a INFO [x] error\nERROR: token=abcdefgh12345678 was refused\nERROR: {key}"
    )

    async def asked() -> subprocess.CompletedProcess[str]:
        parts = {"superlink": False, "gateway": True}
        async with serve(workdir, certificates, parts=parts) as port:
            to = ("--server", f"127.0.0.1:{port}", "--certificates", str(certificates))
            words = ("f2l-admin", *to, "--name", "viewer-1", "doctor", "--folder", str(workdir))
            return await asyncio.to_thread(command, *words)

    done = asyncio.run(asked())
    assert done.returncode == 1, done.stderr
    assert "problems\n  superlink is down\n" in done.stdout
    assert re.search(r"ahead of the server  [+-][0-2]\.\d s", done.stdout)
    assert re.search(r"identity viewer-1  +36[45] days left", done.stdout)
    assert "ERROR: token=… was refused" in done.stdout
    assert "https_proxy" in done.stdout
    assert not any(word in done.stdout for word in ("secret-word", "abcdefgh", "INFO", "MIG"))


def test_a_server_of_an_earlier_version_says_how_its_gateway_stands(workdir, certificates):
    parts = {"superlink": True, "front": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(health, "FORMER_NAMES", {})
        found = ask(workdir, certificates, "viewer-1", control_client.parts, parts=parts)
    assert found == {"superlink": True, "gateway": False}


def test_a_probe_without_a_right_or_for_something_else_is_refused(workdir, certificates):
    for who, name, code in (
        ("line-7", "", grpc.StatusCode.PERMISSION_DENIED),
        ("viewer-1", "backdoor", grpc.StatusCode.NOT_FOUND),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            health_of(workdir, certificates, who, name, {})
        assert refusal.value.code() is code
    assert health_of(workdir, certificates, "admin-1", "", {}) == "SERVING"


def test_who_watches_the_health_hears_of_each_change(workdir, certificates):
    parts = {"superlink": False}

    async def question(to: Connection) -> list[int]:
        told = []
        async for answer in to.health.Watch(pb_health.HealthCheckRequest(), timeout=PATIENCE_S):
            told.append(answer.status)
            parts["superlink"] = not parts["superlink"]
            if len(told) == 3:
                break
        return told

    down, up = pb_health.HealthCheckResponse.NOT_SERVING, pb_health.HealthCheckResponse.SERVING
    assert ask(workdir, certificates, "viewer-1", question, parts=parts) == [down, up, down]


def test_a_method_without_a_rule_is_for_nobody(workdir: Path, certificates: Path) -> None:
    with pytest.raises(ControlError, match="expected nobody, got admin-1, admin"):
        ask(workdir, certificates, "admin-1", control_client.health, rules={})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("expired", r"valid from \S+ until \S+ only. Check this machine's clock"),
        ("server", "the server does not accept this identity"),
    ],
)
def test_a_certificate_that_is_expired_or_for_servers_is_refused(
    workdir: Path, certificates: Path, name: str, said: str
) -> None:
    with pytest.raises(ControlError, match=said) as refusal:
        ask(workdir, certificates, name, control_client.health)
    assert status_of(refusal.value) is grpc.StatusCode.UNAVAILABLE


def test_another_authority_is_refused_by_both_sides(
    workdir: Path, certificates: Path, tmp_path: Path
) -> None:
    other_authority = tmp_path / "other"
    create_authority(other_authority)
    issue(other_authority, "admin-1", "admin")
    identity = other_authority / "admin-1"

    said = "this is not the federation's server"

    async def refused(to: Connection) -> None:
        async with connect(to.address, other_authority, "admin-1") as other:
            with pytest.raises(ControlError, match=said) as refusal:
                await control_client.health(other)
            assert status_of(refusal.value) is grpc.StatusCode.UNAVAILABLE

    ask(workdir, certificates, "admin-1", refused)
    said = "the server does not accept this identity"
    # Now the caller trusts the server, so that only the server can object.
    (identity / "ca.crt").write_bytes((certificates / "ca.crt").read_bytes())
    ask(workdir, certificates, "admin-1", refused)


def test_without_a_certificate_nobody_gets_in(workdir: Path, certificates: Path) -> None:
    root = (certificates / "ca.crt").read_bytes()

    async def refused(to: Connection) -> None:
        anonymous = grpc.ssl_channel_credentials(root_certificates=root)
        for channel in (
            grpc.aio.secure_channel(to.address, anonymous),
            grpc.aio.insecure_channel(to.address),
        ):
            async with channel:
                call = channel.unary_unary("/f2l_fed.control.v1.Control/Health")
                with pytest.raises(grpc.aio.AioRpcError) as refusal:
                    await call(b"", timeout=PATIENCE_S)
                assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE

    ask(workdir, certificates, "admin-1", refused)


def test_a_client_does_not_take_a_site_for_the_server(workdir: Path, certificates: Path) -> None:
    assert ask(workdir, certificates, "admin-1", control_client.health, host="localhost")
    with pytest.raises(ControlError, match=r"not the federation's server \(unsuitable") as refusal:
        ask(
            workdir,
            certificates,
            "admin-1",
            control_client.health,
            host="localhost",
            name="localhost",
        )
    assert status_of(refusal.value) is grpc.StatusCode.UNAVAILABLE


def test_the_server_ends_a_watch_in_its_own_time(workdir: Path, certificates: Path) -> None:
    async def watch(to: Connection) -> list[RoundState]:
        return [state async for state in control_client.watch_rounds(to, first=2)]

    brief = {method: dataclasses.replace(rule, limit_s=3.0) for method, rule in RULES.items()}
    assert ask(workdir, certificates, "viewer-1", watch, rules=brief) == [RUNNING]


def test_watches_are_limited_and_closing_one_makes_room(workdir: Path, certificates: Path) -> None:
    async def watch_too_much(to: Connection) -> RoundState:
        watches = [control_client.watch_rounds(to) for _ in range(16)]
        await asyncio.gather(*(anext(watch) for watch in watches))
        with pytest.raises(ControlError, match="too many rounds and events") as refusal:
            await anext(control_client.watch_rounds(to))
        assert status_of(refusal.value) is grpc.StatusCode.RESOURCE_EXHAUSTED
        for watch in watches:
            await watch.aclose()
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with suppress(ControlError):
                    return await anext(control_client.watch_rounds(to))
                await asyncio.sleep(0.05)

    assert ask(workdir, certificates, "viewer-1", watch_too_much) == DONE


def test_an_oversized_request_is_refused(workdir: Path, certificates: Path) -> None:
    with pytest.raises(ControlError, match="larger than max") as refusal:
        ask(
            workdir,
            certificates,
            "admin-1",
            lambda to: control_client.promote(to, "x" * LARGEST_REQUEST_BYTES),
        )
    assert status_of(refusal.value) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert is_one_sentence(refusal.value)


def test_nobody_lists_the_methods(workdir: Path, certificates: Path) -> None:
    own = Credentials.read(certificates / "admin-1")
    credentials = grpc.ssl_channel_credentials(own.authority, own.key, own.certificate)

    async def reflect(to: Connection) -> grpc.StatusCode:
        async with grpc.aio.secure_channel(to.address, credentials) as channel:
            path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await channel.unary_unary(path)(b"", timeout=PATIENCE_S)
            return refusal.value.code()

    assert ask(workdir, certificates, "admin-1", reflect) is grpc.StatusCode.UNIMPLEMENTED
