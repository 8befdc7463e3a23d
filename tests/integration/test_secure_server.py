"""Access to a running central service, and its robustness: real processes on loopback."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode import node_auth_http_interceptor

from clients.onboarding.enrolment import EnrolmentError, register, renew
from clients.onboarding.kit import read_kit
from clients.onboarding.preflight import check
from clients.onboarding.site_template import create_site
from clients.site.site_folder import SiteFolder
from f2l_fed.errors import ConfigError
from server.control import client as control_client
from server.control.client import ControlError
from server.federation import settings
from server.pki.certificate_store import create_authority, issue
from server.pki.identity import Credentials
from server.pki.revocation import revoke
from server.processes import strays
from server.supervision.supervisor import central as service
from tests.support.central import Central, command, exchange, prepare, running, status_of
from tests.support.sites import digits_site
from tests.support.visits import activate, invited, registered, shaking
from tests.support.waiting import PATIENCE_S, holds

pytestmark = [pytest.mark.deployment, pytest.mark.slow]

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def central(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Central]:
    root = tmp_path_factory.mktemp("central") / "federation"
    with running(root, *prepare(root)) as service:
        yield service
        assert strays(service.mark) != []
    assert strays(service.mark) == []


@pytest.fixture(scope="module")
def kits(central: Central, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kits")


OTHER_PATHS = [
    "/v1/control/list-runs", "/v1/control/start-run", "/v1/control/register-node",
    "/v1/runtime/pull-task", "/docs", "/openapi.json", "/",
    "/v1/fleet/../control/list-runs", "/v1/fleet/%2e%2e/control/list-runs",
    "//v1/control/list-runs", "/v1/fleet/pull-messages?x=1", "/V1/CONTROL/list-runs",
]  # fmt: skip


@pytest.mark.parametrize("who", ["outsider", "site"])
def test_nobody_reaches_more_than_the_routes_for_sites(central, kits, who):
    tls = shaking(central, registered(central, kits, "north") if who == "site" else None)
    for path in OTHER_PATHS:
        for method in ("GET", "POST"):
            request = f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
            answer = exchange(central.gateway, request.encode(), tls=tls)
            assert status_of(answer) == 404, (method, path)


def test_an_outsider_only_learns_that_the_server_works(central, kits):
    health = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    assert status_of(exchange(central.gateway, health, tls=shaking(central))) == 200
    north = registered(central, kits, "north")
    assert activate(central, shaking(central), north) == 401
    me = b"GET /v1/site/me HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    assert status_of(exchange(central.gateway, me, tls=shaking(central))) == 401
    assert status_of(exchange(central.gateway, me, tls=shaking(central, north))) == 200


def test_flowers_control_routes_ask_for_the_secret_on_loopback_too(central):
    link = central.superlink.port
    for path in ("/v1/control/list-nodes", "/v1/control/start-run", "/docs"):
        request = f"POST {path} HTTP/1.1\r\nhost: x\r\nx-f2l-secret: guess\r\n".encode()
        request += b"content-length: 0\r\nconnection: close\r\n\r\n"
        assert status_of(exchange(link, request, tls=shaking(central))) == 401


def test_a_site_gets_in_with_its_own_certificate_and_key_and_no_other_pair(central, kits):
    north, south = registered(central, kits, "north"), registered(central, kits, "south")
    assert activate(central, shaking(central, north), north) == 200
    assert activate(central, shaking(central, north), south) == 401
    assert activate(central, shaking(central, south), north) == 401


def test_certificates_that_are_no_sites_are_refused(central, kits, tmp_path):
    north = registered(central, kits, "north")
    assert activate(central, shaking(central, central.certificates / "admin"), north) == 401
    # A server's certificate, an expired one, one of another authority: no handshake at all.
    assert activate(central, shaking(central, central.certificates / "server"), north) == 0
    long_ago = NOW - timedelta(days=400)
    old = tmp_path / "old"
    create_authority(old, now=long_ago)
    for name in ("ca.crt", "ca.key"):
        (old / name).write_bytes((central.certificates / name).read_bytes())
    past = NOW - timedelta(minutes=4)
    expired = issue(old, "north", "site", days=1, now=past - timedelta(days=2))
    assert activate(central, shaking(central, expired), north) == 0
    other = tmp_path / "other"
    create_authority(other)
    assert activate(central, shaking(central, issue(other, "north", "site")), north) == 0
    # Of the right authority, but for a name that nobody has registered.
    ghost = issue(old, "ghost", "site", days=1)
    assert activate(central, shaking(central, ghost), north) == 401


def test_a_kit_lets_in_once(central, kits, tmp_path):
    kit = read_kit(invited(central, kits, "once"), now=NOW)
    register(kit, tmp_path / "first")
    with pytest.raises(EnrolmentError, match="refused: got the kit has been used already"):
        register(kit, tmp_path / "second")
    assert not (tmp_path / "second" / "tls.crt").exists()
    assert (tmp_path / "first" / "flower.key").stat().st_mode & 0o777 == 0o600


def test_a_kit_that_was_answered_without_being_heard_works_again(central, kits, tmp_path):
    kit = read_kit(invited(central, kits, "unheard"), now=NOW)
    register(kit, tmp_path / "site")
    certificate = (tmp_path / "site" / "tls.crt").read_bytes()
    (tmp_path / "site" / "tls.crt").unlink()
    register(kit, tmp_path / "site")
    assert (tmp_path / "site" / "tls.crt").read_bytes() == certificate


def test_altered_expired_and_made_up_kits_are_refused_in_one_sentence(central, kits, tmp_path):
    path = invited(central, kits, "altered")
    values = json.loads(path.read_text())
    (tmp_path / "a.kit").write_text(json.dumps({**values, "server": "localhost:1"}))
    with pytest.raises(ConfigError, match=r"the kit was altered\. Ask the administrator"):
        read_kit(tmp_path / "a.kit", now=NOW)
    with pytest.raises(ConfigError, match="the kit has expired: got ended"):
        read_kit(path, now=NOW + timedelta(hours=73))
    (tmp_path / "b.kit").write_text("{}")
    with pytest.raises(ConfigError, match="the kit has another format"):
        read_kit(tmp_path / "b.kit", now=NOW)
    invited(central, kits, "other")
    for site in ("altered", "other", "nobody"):
        guessed = dict(values, token="A" * 43, site=site)
        form = {"site": site, "token": guessed["token"], "key": "x", "request": "y"}
        body = json.dumps(form).encode()
        request = b"POST /v1/site/enrol HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        request += b"content-length: %d\r\n\r\n" % len(body) + body
        answer = exchange(central.gateway, request, tls=shaking(central))
        assert status_of(answer) == 409
        assert b"the kit is not known here" in answer


def test_a_site_renews_and_is_removed_and_both_hold_at_once(central, kits):
    folder = registered(central, kits, "leaving")
    digits_site(folder / "data")
    site = SiteFolder.read(
        create_site(
            folder, "leaving", folder / "data/train.npz", address=f"localhost:{central.gateway}"
        )
    )
    old = shaking(central, folder)
    before = (folder / "tls.key").read_bytes()
    assert activate(central, old, folder) == 200
    renew(site, now=datetime.now(UTC))
    assert (folder / "tls.key").read_bytes() != before
    assert activate(central, old, folder) == 401
    assert activate(central, shaking(central, folder), folder) == 200
    assert check(folder / "site.toml").problems == ()

    assert central.ask(lambda to: control_client.remove_site(to, "leaving")).state == "removed"
    assert activate(central, shaking(central, folder), folder) == 401
    with pytest.raises(EnrolmentError, match="this site is not registered"):
        renew(site, now=datetime.now(UTC))
    (problem,) = check(folder / "site.toml").problems
    assert "does not know this site, or has removed it" in problem
    with pytest.raises(ControlError, match="there is a site of this name already"):
        central.ask(lambda to: control_client.add_site(to, "leaving"))


@pytest.mark.parametrize(("away_s", "status"), [(-280, 200), (280, 200), (-320, 401), (320, 401)])
def test_a_site_whose_clock_is_wrong_is_let_in_within_five_minutes(
    central, kits, away_s, status, monkeypatch
):
    north = registered(central, kits, "north")
    clock = node_auth_http_interceptor.now
    monkeypatch.setattr(
        node_auth_http_interceptor, "now", lambda: clock() + timedelta(seconds=away_s)
    )
    assert activate(central, shaking(central, north), north) == status


@pytest.mark.parametrize(
    ("away", "words"),
    [
        (timedelta(minutes=10), r"clock is 60[0-3] s ahead of the server's"),
        (timedelta(days=-400), "s behind the server's"),
        (timedelta(days=400), "s ahead of the server's"),
    ],
)
def test_the_check_says_by_how_much_clocks_differ(central, kits, away, words):
    folder = kits / "early"
    if not folder.exists():
        digits_site(folder / "data")
        register(read_kit(invited(central, kits, "early"), now=NOW), folder)
        data = folder / "data/train.npz"
        create_site(folder, "early", data, address=f"localhost:{central.gateway}")
    assert check(folder / "site.toml").problems == ()
    now = datetime.now(UTC) + away
    (problem,) = check(folder / "site.toml", now=now).problems
    assert re.search(words, problem)
    assert "Set the clock that is wrong" in problem


def test_a_viewer_looks_and_a_revoked_one_does_not(central, kits):
    eve = issue(central.certificates, "eve", "viewer")
    assert central.ask(control_client.list_sites, name="eve") is not None
    refused = central.admin("site", "add", "x", "--out", str(kits / "x"), name="eve")
    assert refused.returncode == 1
    assert "AddSite is not for this role" in refused.stderr
    revoke(central.certificates, [Credentials.read(eve).serial])
    with pytest.raises(ControlError, match="the certificate has been revoked"):
        central.ask(control_client.list_sites, name="eve")


MALFORMED = {
    "no request": (b"\x00\x01\x02\x03" * 50 + b"\r\n\r\n", 400),
    "no host": (b"POST /v1/fleet/pull-messages HTTP/1.1\r\ncontent-length: 0\r\n\r\n", 400),
    "endless head": (b"GET /health HTTP/1.1\r\nhost: x\r\na: " + b"b" * 70_000, 431),
    "two lengths": (
        b"POST /v1/site/enrol HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n"
        b"content-length: 4\r\n\r\nabcd",
        400,
    ),
    "length that is none": (
        b"POST /v1/site/enrol HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        400,
    ),
    "too long for a form": (
        b"POST /v1/site/enrol HTTP/1.1\r\nhost: x\r\ncontent-length: 20000\r\n\r\n",
        413,
    ),
    "too long in pieces": (
        b"POST /v1/site/enrol HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        + (b"1000\r\n" + b"x" * 4096 + b"\r\n") * 5,
        413,
    ),
    "no form": (
        b"POST /v1/site/enrol HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n"
        b"connection: close\r\n\r\n[[[[",
        409,
    ),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_and_oversized_requests_are_answered_with_a_status(central, what):
    request, status = MALFORMED[what]
    assert status_of(exchange(central.gateway, request, tls=shaking(central))) == status


def test_damaged_messages_of_a_site_leave_the_service_up(central, kits):
    north = registered(central, kits, "north")
    private = load_ssh_private_key((north / "flower.key").read_bytes(), None)
    key = base64.b64encode(public_key_to_bytes(private.public_key()))
    rng = random.Random(0)
    for size in (0, 1, 7, 300, 5000):
        body = rng.randbytes(size)
        request = b"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: x\r\nflwr-public-key: " + key
        request += b"\r\ncontent-type: application/x-protobuf\r\nconnection: close\r\n"
        request += b"content-length: %d\r\n\r\n" % size + body
        answer = exchange(central.gateway, request, tls=shaking(central, north))
        assert 400 <= status_of(answer) < 500
    assert activate(central, shaking(central, north), north) == 200


def test_a_crowd_of_idle_and_slow_unknown_clients_leaves_room_for_sites(central, kits):
    north = registered(central, kits, "north")
    with ExitStack() as stack:
        for number in range(1000):
            # Ten addresses of loopback, each with more connections than it may have.
            source = f"127.0.1.{1 + number % 10}"
            with suppress(OSError):
                made = socket.create_connection(
                    ("127.0.0.1", central.gateway), timeout=PATIENCE_S, source_address=(source, 0)
                )
                stack.callback(made.close)
                if number % 3 == 0:
                    made.sendall(b"\x16\x03\x01\x02")
        assert holds(lambda: activate(central, shaking(central, north), north) == 200)
        assert central.ask(control_client.list_sites)
    assert activate(central, shaking(central, north), north) == 200


def test_one_address_takes_no_more_connections_than_it_may(central):
    with ExitStack() as stack:
        many = [
            stack.enter_context(
                socket.create_connection(
                    ("127.0.0.1", central.gateway),
                    timeout=PATIENCE_S,
                    source_address=("127.0.2.1", 0),
                )
            )
            for _ in range(70)
        ]
        # Those over the limit are closed at once, the others are waited for.
        closed = set()

        def look() -> int:
            for one in many:
                one.setblocking(False)
                with suppress(BlockingIOError, ConnectionError):
                    if one.recv(1) == b"":
                        closed.add(one)
            return len(closed)

        assert holds(lambda: look() >= 10)
        assert len(closed) == 10


def test_no_secret_is_in_a_command_line_a_log_or_an_event(central, kits):
    registered(central, kits, "north")
    secrets = [(central.root / "flower" / "secret").read_text().strip()]
    secrets += [json.loads(path.read_text())["token"] for path in kits.glob("*.kit")]
    for path in [*central.certificates.rglob("*.key"), *kits.rglob("*.key")]:
        secrets += path.read_text().splitlines()[1:3]
    assert len(secrets) > 8
    processes = [central.process.pid, *strays(central.mark)]
    assert len(processes) >= 4, "server, SuperLink, SuperExec, gateway"
    files = [Path(f"/proc/{pid}/{name}") for pid in processes for name in ("cmdline", "environ")]
    texts = [file.read_bytes().decode(errors="replace") for file in files]
    texts += [central.logs(), (central.root / "events.jsonl").read_text()]
    texts += [(central.root / "server.log").read_text()]
    for secret in secrets:
        assert all(secret not in text for text in texts)


def test_a_second_server_and_a_taken_port_are_told_in_one_sentence(central, tmp_path):
    second = command("f2l-server", "run", str(central.root))
    assert second.returncode == 2
    assert "a server runs for this federation already" in second.stderr
    assert "Traceback" not in second.stderr
    server = {"listen": f"127.0.0.1:{central.gateway}", "control": "127.0.0.1:0", "dashboard": 0}
    settings.create(tmp_path / "other", {}, [], server, "here")

    async def start() -> None:
        async with service(tmp_path / "other"):
            raise AssertionError("it runs")

    with pytest.raises(ConfigError, match=r"\[server\] listen: this address can't be listened on"):
        asyncio.run(start())


@pytest.mark.parametrize("child", ["server.gateway.gateway", "server.superlink.process"])
def test_a_child_that_is_killed_comes_back_and_sites_are_known_again(central, kits, child):
    north = registered(central, kits, "north")
    (pid,) = [
        pid
        for pid in strays(central.mark)
        if child in Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    ]
    part = {"server.gateway.gateway": "gateway", "server.superlink.process": "superlink"}[child]
    assert central.ask(control_client.parts) == {"superlink": True, "gateway": True}
    os.kill(pid, signal.SIGKILL)
    assert holds(lambda: not central.ask(control_client.parts)[part])

    def back() -> bool:
        with suppress(OSError, subprocess.TimeoutExpired):
            return activate(central, shaking(central, north), north) == 200
        return False

    assert holds(back)
    assert holds(lambda: central.ask(control_client.parts)[part])
    assert central.admin("health").stdout == "superlink works, gateway works\n"
