from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta

import pytest

from f2l_fed.errors import ConfigError
from f2l_fed.wire.kit import KIT_END, Kit
from server.pki.certificate_authority import CertificateAuthority, certificate_pem

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def kit() -> Kit:
    authority = CertificateAuthority.create(days=9, now=NOW).certificate
    return Kit.create(
        site="north",
        server="hub:8443",
        authority=certificate_pem(authority).decode(),
        token="a" * 43,
        expires=(NOW + timedelta(hours=2)).isoformat(),
    )


def test_a_kit_is_read_back_until_it_expires(kit: Kit) -> None:
    assert Kit.parse(kit.to_json(), where="north.kit", now=NOW) == kit
    with pytest.raises(ConfigError, match=r"^north\.kit: the kit has expired: got ended 2026-01"):
        Kit.parse(kit.to_json(), where="north.kit", now=NOW + timedelta(hours=2))


def test_a_kit_has_the_fields_and_the_fingerprint_of_format_2(kit: Kit) -> None:
    values = json.loads(kit.to_json())
    assert list(values) == [
        "format", "site", "server", "authority", "token", "expires", "fingerprint",
    ]  # fmt: skip
    assert values.pop("fingerprint") == kit.fingerprint
    text = json.dumps(values, sort_keys=True)
    assert kit.fingerprint == hashlib.sha256(text.encode()).hexdigest()
    assert kit.short_fingerprint == kit.fingerprint[:16]
    assert values["format"] == 2


def test_a_kit_names_the_backbone_whose_file_follows_in_its_fingerprint(kit: Kit) -> None:
    fields = {"site": kit.site, "server": kit.server, "authority": kit.authority}
    more = {**fields, "token": kit.token, "expires": kit.expires, "backbone": "ab" * 32}
    whole = Kit.create(**more)
    assert whole.fingerprint != kit.fingerprint
    assert Kit.parse(whole.to_json(), where="north.kit", now=NOW) == whole
    assert (whole.to_json().count(KIT_END), whole.to_json()[-len(KIT_END) :]) == (1, KIT_END)
    with pytest.raises(ConfigError, match="field backbone is not valid: expected 64"):
        Kit.parse(Kit.create(**more | {"backbone": "AB"}).to_json(), where="north.kit")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "ab" * 32}, "the kit was altered"),
        ({"server": "evil:1"}, "the kit was altered"),
        ({"authority": "no certificate"}, "the kit was altered"),
        ({"expires": "2027-01-01T00:00:00"}, "the kit was altered"),
        ({"format": 1}, "the kit has another format: expected format 2, got 1"),
        ({"more": 1}, "unknown key: .* got more"),
    ],
)
def test_a_kit_that_was_changed_is_refused(kit: Kit, change: dict, message: str) -> None:
    content = json.dumps({**json.loads(kit.to_json()), **change}).encode()
    with pytest.raises(ConfigError, match=message):
        Kit.parse(content, where="north.kit", now=NOW)


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", b"[" * 100_000])
def test_what_is_not_a_table_is_not_a_kit(content: bytes) -> None:
    with pytest.raises(ConfigError, match="the file is not a kit"):
        Kit.parse(content, where="north.kit", now=NOW)
