from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from f2l_fed.errors import ConfigError, UsageError
from server.membership.site_registry import Refused, SiteRegistry, check_key

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def public_key(curve: ec.EllipticCurve | None = None) -> str:
    key = ec.generate_private_key(curve or ec.SECP384R1()).public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


@pytest.fixture
def registry(tmp_path: Path) -> SiteRegistry:
    return SiteRegistry(tmp_path / "registry")


def invite(registry: SiteRegistry, name: str, **how: bool) -> str:
    return registry.invite(name, hours=2, now=NOW, **how)[1]


def test_a_token_registers_one_site_once_and_in_time(registry: SiteRegistry) -> None:
    token, key = invite(registry, "north"), public_key()
    with pytest.raises(Refused, match="the kit has expired"):
        registry.enrol("north", token, key, "pem", 7, now=NOW + timedelta(hours=2))
    registry.enrol("north", token, key, "pem", 7, now=NOW)
    assert registry.active("north").serial_numbers == [7]
    with pytest.raises(Refused, match="has been used already"):
        registry.enrol("north", token, public_key(), "pem", 8, now=NOW)
    with pytest.raises(Refused, match="has been used already"):
        registry.enrol("north", token, key, "pem", 8, now=NOW)


def test_a_wrong_name_and_a_wrong_token_get_the_same_answer(registry: SiteRegistry) -> None:
    token = invite(registry, "north")
    said = set()
    for name, given in (("north", token[:-1]), ("south", token), ("north", "")):
        with pytest.raises(Refused) as refusal:
            registry.enrol(name, given, public_key(), "pem", 7, now=NOW)
        said.add(str(refusal.value))
    assert said == {"the kit is not known here. Ask for a new one."}


def test_the_token_is_not_kept(registry: SiteRegistry, tmp_path: Path) -> None:
    token = invite(registry, "north")
    file = tmp_path / "registry" / "north.json"
    assert token not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600


def test_two_sites_never_have_one_key(registry: SiteRegistry) -> None:
    key = public_key()
    registry.enrol("north", invite(registry, "north"), key, "pem", 7, now=NOW)
    with pytest.raises(Refused, match="the key belongs to another site"):
        registry.enrol("south", invite(registry, "south"), key, "pem", 8, now=NOW)
    registry.enrol("south", invite(registry, "south"), public_key(), "pem", 8, now=NOW)
    with pytest.raises(Refused, match="the key belongs to another site"):
        registry.renew("south", key, "pem", 9)


def variants(key: str) -> list[str]:
    """Other texts that readers of the format take for the same key."""
    kind, data = key.split()
    return [f"{kind} {data[:40]}!{data[40:]}", f"{kind}\t{data}", f"{kind} {data}==="]


def test_the_same_key_in_other_letters_is_the_same_key(registry: SiteRegistry) -> None:
    key = public_key()
    for one in variants(key):
        assert check_key(one) == key
    token = invite(registry, "north")
    registry.enrol("north", token, variants(key)[0], "pem", 7, now=NOW)
    assert registry.active("north").key == key
    assert registry.admit("north", token, variants(key)[1], now=NOW).key == key
    registry.enrol("south", invite(registry, "south"), public_key(), "pem", 8, now=NOW)
    for one in variants(key):
        with pytest.raises(Refused, match="the key belongs to another site"):
            registry.enrol("east", invite(registry, "east"), one, "pem", 8, now=NOW)
        with pytest.raises(Refused, match="the key belongs to another site"):
            registry.renew("south", one, "pem", 9)
        assert registry.renew("north", one, "pem", 9)[1].key == key


def test_a_key_that_an_earlier_version_kept_in_another_form_is_known(
    registry: SiteRegistry, tmp_path: Path
) -> None:
    key = public_key()
    registry.enrol("north", invite(registry, "north"), key, "pem", 7, now=NOW)
    path = tmp_path / "registry" / "north.json"
    text = path.read_text().replace(key.split()[1], variants(key)[0].split()[1])
    path.write_text(text)
    with pytest.raises(Refused, match="the key belongs to another site"):
        registry.enrol("south", invite(registry, "south"), key, "pem", 8, now=NOW)


def test_a_new_invitation_replaces_the_one_before(registry: SiteRegistry) -> None:
    first, second = invite(registry, "north"), invite(registry, "north")
    with pytest.raises(Refused, match="not known here"):
        registry.enrol("north", first, public_key(), "pem", 7, now=NOW)
    registry.enrol("north", second, public_key(), "pem", 7, now=NOW)
    with pytest.raises(UsageError, match="got active"):
        invite(registry, "north")
    third = invite(registry, "north", replace=True)
    with pytest.raises(Refused, match="this site is not registered"):
        registry.active("north")
    registry.enrol("north", third, public_key(), "pem", 9, now=NOW)


def test_a_removed_site_is_out_for_good(registry: SiteRegistry) -> None:
    token = invite(registry, "north")
    registry.remove("north")
    with pytest.raises(Refused, match="not known here"):
        registry.enrol("north", token, public_key(), "pem", 7, now=NOW)
    for how in ({}, {"replace": True}):
        with pytest.raises(UsageError, match="got removed"):
            invite(registry, "north", **how)
    with pytest.raises(UsageError, match="unknown site"):
        registry.remove("south")


def test_a_damaged_file_is_named(registry: SiteRegistry, tmp_path: Path) -> None:
    invite(registry, "north")
    (tmp_path / "registry" / "north.json").write_text("{")
    with pytest.raises(ConfigError, match=r"north\.json: the site's registration is damaged"):
        registry.all()


@pytest.mark.parametrize("name", ["", "../north", "North", "a b"])
def test_an_invalid_name_is_refused(registry: SiteRegistry, name: str) -> None:
    with pytest.raises(ConfigError, match="invalid name"):
        registry.find(name)


@pytest.mark.parametrize(
    "key", ["", "nonsense", "ssh-rsa AAAA", public_key(ec.SECP256R1()), public_key() + " comment"]
)
def test_a_key_that_flower_can_not_use_is_refused(key: str) -> None:
    with pytest.raises(Refused, match="not a public key"):
        check_key(key)
