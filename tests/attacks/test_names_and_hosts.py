"""What a caller without a certificate, and a web page in a browser, learn: nothing."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from clients.daemon.status_page import serving_page
from clients.onboarding.keys import Keys
from f2l_fed.wire.enrolment import RenewalForm
from server.dashboard.app import serve_dashboard
from tests.attacks.peers.web_page import FOREIGN_HOSTS, OWN_HOSTS, asked
from tests.support.deployment import free_ports
from tests.support.gateway import RunningGateway, gateway_running
from tests.support.sites import digits_site
from tests.support.waiting import PATIENCE_S, holds

NAMES = {
    "active": "north",
    "renewed": "renewed",
    "invited": "invited",
    "removed": "removed",
    "unknown": "nobody",
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with gateway_running(tmp_path_factory.mktemp("names") / "federation") as running:
        running.registered("north")
        renewed = Keys.read(running.registered("renewed"))
        running.membership.renew(form("renewed", by=renewed))
        running.registered("removed")
        running.membership.remove("removed", "admin")
        running.kit("invited")
        yield running


def form(name: str, *, by: Keys, key: str = "") -> RenewalForm:
    """A renewal for new keys, signed by some keys."""
    after = Keys.make()
    return RenewalForm.signed(
        site=name,
        key=key or after.public,
        request=after.request(name),
        time=datetime.now(UTC),
        by=by.flower,
    )


def answer(gateway: RunningGateway, form: RenewalForm) -> tuple[int, str]:
    """The answer of the enrolment service, behind the gateway."""
    fields = ("site", "key", "request", "time", "signature")
    body = json.dumps({name: getattr(form, name) for name in fields})
    connection = http.client.HTTPConnection("127.0.0.1", gateway.enrolment, timeout=PATIENCE_S)
    connection.request("POST", "/v1/site/renew", body)
    reply = connection.getresponse()
    said = reply.status, reply.read().decode()
    connection.close()
    return said


def test_a_renewal_tells_no_names_apart_without_a_sites_key(gateway):
    stranger = Keys.make()
    said = {state: answer(gateway, form(name, by=stranger)) for state, name in NAMES.items()}
    assert set(said.values()) == {said["unknown"]}
    assert said["unknown"][0] == 409
    assert "nobody" not in said["unknown"][1]
    # Nor with the registered key of a site in the form: keys are public.
    key = gateway.membership.registry.active("renewed").key
    said = {
        state: answer(gateway, form(name, by=stranger, key=key)) for state, name in NAMES.items()
    }
    assert set(said.values()) == {said["unknown"]}


def test_a_renewal_costs_the_same_work_for_every_name(gateway, monkeypatch):
    verified: list[str] = []
    before = RenewalForm.is_signed_by

    def counted(form: RenewalForm, key: str) -> bool:
        verified.append(key)
        return before(form, key)

    monkeypatch.setattr(RenewalForm, "is_signed_by", counted)
    numbers = {}
    for state, name in NAMES.items():
        verified.clear()
        answer(gateway, form(name, by=Keys.make()))
        numbers[state] = len(verified)
        assert all(key.startswith("ecdsa-sha2-nistp384 ") for key in verified)
    assert set(numbers.values()) == {2}


def test_the_sites_own_key_still_renews_and_learns_of_a_removal(gateway):
    own = Keys.read(gateway.root.parent / "north")
    status, text = answer(gateway, form("north", by=own))
    assert (status, list(json.loads(text))) == (200, ["certificate"])
    gone = Keys.read(gateway.root.parent / "removed")
    status, text = answer(gateway, form("removed", by=gone))
    assert status == 409
    assert "this site is not registered" in text


def test_a_damaged_registration_tells_no_path_of_the_server(gateway):
    (gateway.root / "registry/damaged.json").write_text("{")
    try:
        status, text = answer(gateway, form("damaged", by=Keys.make()))
    finally:
        (gateway.root / "registry/damaged.json").unlink()
    assert status == 500
    assert str(gateway.root) not in text


@contextmanager
def dashboard(folder: Path, *hosts: str) -> Iterator[int]:
    """A dashboard in a thread of its own; yields its port."""
    started, stop, port = threading.Event(), threading.Event(), [0]

    async def serve() -> None:
        async with serve_dashboard(folder, **({"hosts": hosts} if hosts else {})) as bound:
            port[0] = bound
            started.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert holds(lambda: started.is_set() or not thread.is_alive())
        assert started.is_set(), "it has not started"
        yield port[0]
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("path", ["/", "/metrics", "/health"])
def test_a_foreign_web_page_does_not_read_the_dashboard_under_its_own_name(tmp_path, path):
    with dashboard(tmp_path) as port:
        for host in FOREIGN_HOSTS:
            status, text = asked(port, path, host)
            assert status in (400, 421), host
            assert "f2l_" not in text
            assert "Round" not in text
        for host in OWN_HOSTS:
            assert asked(port, path, host.format(port=port))[0] == 200, host


def test_the_dashboard_answers_a_proxy_under_the_names_that_it_has_been_given(tmp_path):
    with dashboard(tmp_path, "fed.example.org") as port:
        for host in ("fed.example.org", "FED.example.org:443", "127.0.0.1:8765"):
            assert asked(port, "/", host)[0] == 200
        for host in ("evil.example", "x.fed.example.org", "fed.example.org.evil.example"):
            assert asked(port, "/", host)[0] == 421


def test_a_foreign_web_page_does_not_ask_the_enrolment_service_under_its_own_name(gateway):
    for host in FOREIGN_HOSTS:
        assert asked(gateway.enrolment, "/v1/site/me", host)[0] in (400, 421)
    assert asked(gateway.enrolment, "/v1/site/me", "127.0.0.1")[0] == 200


def test_a_foreign_web_page_does_not_read_a_sites_page_under_its_own_name(tmp_path):
    site = digits_site(tmp_path)
    (port,) = free_ports(1)
    with serving_page(site, port):
        for host in FOREIGN_HOSTS:
            assert asked(port, "/", host)[0] in (400, 421), host
        for host in OWN_HOSTS:
            assert asked(port, "/", host.format(port=port))[0] == 200, host
