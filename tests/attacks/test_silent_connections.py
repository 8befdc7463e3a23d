"""Silent and slow connections at the gateway: sites get in all the same."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from clients.onboarding.enrolment import EnrolmentError, register
from clients.onboarding.kit import read_kit
from tests.attacks.peers.silent_connections import (
    besieging,
    half_a_hello,
    idle_site,
    silent,
    slow_request,
)
from tests.support.gateway import RunningGateway, gateway_running
from tests.support.waiting import holds

pytestmark = [pytest.mark.slow]

SIX = [f"127.0.3.{number}" for number in range(1, 7)]
SITES_ADDRESS = "127.0.0.1"
ANSWER_S = 60.0
"""Longest wait for one answer; without a place there is none at once."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with gateway_running(tmp_path_factory.mktemp("silent") / "federation") as running:
        yield running


@pytest.fixture(scope="module")
def north(gateway: RunningGateway) -> Path:
    """A site that registered and connected before anybody attacks."""
    folder = gateway.registered("north")
    assert gateway.status(folder) == 200
    return folder


@pytest.mark.parametrize("opening", ["silent", "half a hello", "slow request"])
def test_a_site_gets_in_past_500_silent_connections_of_six_addresses(gateway, north, opening):
    kind = {
        "silent": silent,
        "half a hello": half_a_hello,
        "slow request": slow_request(gateway.root / "certificates/ca.crt"),
    }[opening]
    with besieging(gateway.port, SIX, 560, kind) as siege:
        assert holds(lambda: siege.open_now >= 490)
        tries = [gateway.status(north, source=SITES_ADDRESS, timeout_s=ANSWER_S) for _ in range(10)]
        # From an address where it never was, it is a newcomer that shows a certificate.
        moved = [gateway.status(north, source="127.0.4.1", timeout_s=ANSWER_S) for _ in range(5)]
        assert siege.open_now >= 400, "the attack has gone on"
    assert tries == [200] * 10
    assert 200 in moved


def test_a_new_site_registers_past_500_silent_connections_in_few_tries(gateway, north, tmp_path):
    kit = read_kit(gateway.kit("newcomer"), now=datetime.now(UTC))
    with besieging(gateway.port, SIX, 560) as siege:
        assert holds(lambda: siege.open_now >= 490)
        for number in range(1, 6):
            try:
                register(kit, tmp_path / "newcomer")
                break
            except EnrolmentError:
                assert number < 5, "it never gets in"
    assert (tmp_path / "newcomer/tls.crt").exists()


def test_a_site_gets_in_past_silent_connections_of_as_many_addresses(gateway, north):
    # Every address holds one: none of them holds more than others do.
    many = [f"127.1.{number // 250}.{1 + number % 250}" for number in range(560)]
    with besieging(gateway.port, many, 560) as siege:
        assert holds(lambda: siege.open_now >= 490)
        tries = [gateway.status(north, source=SITES_ADDRESS, timeout_s=ANSWER_S) for _ in range(10)]
    assert tries == [200] * 10


def test_a_site_gets_in_past_silent_connections_of_its_own_address(gateway, north):
    with besieging(gateway.port, [SITES_ADDRESS], 100) as siege:
        assert holds(lambda: siege.open_now >= 95)
        # The silent ones give way once they are two seconds old.
        assert holds(
            lambda: gateway.status(north, source=SITES_ADDRESS, timeout_s=ANSWER_S) == 200,
            timeout_s=30.0,
        )


@pytest.mark.parametrize("state", ["active", "removed"])
def test_one_site_does_not_take_the_places_of_all(tmp_path, state):
    """A certificate buys as many places as one address has, and none once it is revoked."""
    with gateway_running(tmp_path / "federation", connections=40, connections_per_host=10) as small:
        honest, greedy = small.registered("honest"), small.registered("greedy")
        assert small.status(honest) == 200
        if state == "removed":
            small.membership.remove("greedy", "admin")
        idle = idle_site(small.root / "certificates/ca.crt", greedy)
        with besieging(small.port, SIX, 60, idle) as siege:
            assert holds(lambda: siege.attempts >= 200)
            tries = [
                small.status(honest, source=SITES_ADDRESS, timeout_s=ANSWER_S) for _ in range(20)
            ]
        assert tries == [200] * 20
