"""The protocol of a site is named at registration, at renewal and in its latest answer."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from server.membership.site_protocols import RegisteredProtocols
from server.membership.site_registry import SiteRegistry
from tests.unit.server.membership.test_site_registry import public_key

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def registry(tmp_path):
    registry = SiteRegistry(tmp_path / "registry")
    for name, protocol in (("north", {}), ("south", {"protocol": 4})):
        _, token = registry.invite(name, hours=1, now=NOW)
        registry.enrol(name, token, public_key(), "pem", 7, now=NOW, **protocol)
    return registry


def test_a_site_speaks_what_it_has_named(registry):
    protocols = RegisteredProtocols(registry)
    assert (protocols.of("north"), protocols.of("south")) == (3, 4)
    protocols.note("north", 4)
    protocols.note("south", 3)
    assert (protocols.of("north"), protocols.of("south")) == (4, 3)


def test_a_renewal_names_the_protocol(registry):
    registry.renew("north", public_key(), "pem", 8, protocol=5)
    assert registry.active("north").protocol == 5
    registry.renew("north", public_key(), "pem", 9)
    assert registry.active("north").protocol == 3


def test_a_registration_of_an_older_version_speaks_the_oldest(registry, tmp_path):
    path = tmp_path / "registry/south.json"
    values = json.loads(path.read_text())
    assert values.pop("protocol") == 4
    path.write_text(json.dumps(values))
    assert RegisteredProtocols(registry).of("south") == 3


def test_sites_that_are_not_registered_speak_the_latest_and_nothing_is_kept(tmp_path):
    protocols = RegisteredProtocols(SiteRegistry(tmp_path / "registry"))
    for name in ("site-000", "../north", ""):
        protocols.note(name, 3)
        assert protocols.of(name) == 4
    assert not (tmp_path / "registry").exists()


def test_a_site_that_was_removed_is_not_changed(registry):
    registry.remove("north")
    RegisteredProtocols(registry).note("north", 4)
    assert registry.find("north").protocol == 3


def test_a_damaged_registration_fails_nothing(registry, tmp_path):
    (tmp_path / "registry/north.json").write_text("{")
    protocols = RegisteredProtocols(registry)
    protocols.note("north", 4)
    assert protocols.of("north") == 3
