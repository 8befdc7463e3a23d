from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from f2l_fed.errors import ConfigError, WireError
from f2l_fed.wire.enrolment import EnrolmentForm, RenewalForm, parse_form
from f2l_fed.wire.kit import Kit
from server.pki.certificate_authority import CertificateAuthority, certificate_pem

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP384R1())


def public(key: ec.EllipticCurvePrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
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


def test_a_renewal_is_signed_over_all_its_fields_in_order() -> None:
    form = RenewalForm.signed(site="north", key="k", request="r", time=NOW, by=KEY)
    text = b'["renew", "north", "k", "r", "2026-01-01T00:00:00+00:00"]'
    assert form.text == text
    KEY.public_key().verify(base64.b64decode(form.signature), text, ec.ECDSA(hashes.SHA384()))
    assert form.is_signed_by(public(KEY))
    assert not form.is_signed_by(public(ec.generate_private_key(ec.SECP384R1())))
    assert not form.is_signed_by("nonsense")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"site": "a", "token": "b", "key": "c"}',
        b'{"site": "a", "token": "b", "key": "c", "request": "d", "more": "e"}',
        b'{"site": "a", "token": "b", "key": "c", "request": 1}',
        b" " * 2**14 + b'{"site": "a", "token": "b", "key": "c", "request": "d"}',
        b"[" * 10_000,
    ],
)
def test_a_form_of_another_kind_is_refused(body: bytes) -> None:
    with pytest.raises(WireError, match="the request has another form: expected "):
        parse_form(EnrolmentForm, body)


def test_a_form_is_read_from_a_request() -> None:
    form = parse_form(EnrolmentForm, b'{"site": "a", "token": "b", "key": "c", "request": "d"}')
    assert (form.site, form.token, form.key, form.request) == ("a", "b", "c", "d")
