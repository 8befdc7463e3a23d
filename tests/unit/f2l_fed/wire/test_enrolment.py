from __future__ import annotations

import base64
import json
from dataclasses import asdict, replace
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from f2l_fed.errors import WireError
from f2l_fed.wire.enrolment import EnrolmentForm, RenewalForm, parse_form

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP384R1())


def public(key: ec.EllipticCurvePrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def test_a_renewal_is_signed_over_all_its_fields_in_order() -> None:
    form = RenewalForm.signed(site="north", key="k", request="r", time=NOW, by=KEY)
    text = b'["renew", "north", "k", "r", "2026-01-01T00:00:00+00:00"]'
    assert form.text == text
    KEY.public_key().verify(base64.b64decode(form.signature), text, ec.ECDSA(hashes.SHA384()))
    assert form.is_signed_by(public(KEY))
    assert not form.is_signed_by(public(ec.generate_private_key(ec.SECP384R1())))
    assert not form.is_signed_by("nonsense")


def test_the_protocol_is_signed_too_where_it_is_named() -> None:
    form = RenewalForm.signed(site="north", key="k", request="r", time=NOW, by=KEY, protocol=4)
    assert form.text == b'["renew", "north", "k", "r", "2026-01-01T00:00:00+00:00", 4]'
    assert form.is_signed_by(public(KEY))
    assert not replace(form, protocol=3).is_signed_by(public(KEY))
    assert parse_form(RenewalForm, json.dumps(asdict(form)).encode()) == form


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
    # As older sites send it.
    assert form.protocol == 3


def test_a_form_names_the_highest_protocol_of_its_site() -> None:
    fields = {"site": "a", "token": "b", "key": "c", "request": "d"}
    form = parse_form(EnrolmentForm, json.dumps({**fields, "protocol": 12}).encode())
    assert form.protocol == 12


@pytest.mark.parametrize("named", ["4", 2, 1000, True, 4.0, None, [4]])
def test_a_protocol_that_is_none_is_refused(named: object) -> None:
    fields = {"site": "a", "token": "b", "key": "c", "request": "d", "protocol": named}
    with pytest.raises(WireError, match="not a version of the protocol"):
        parse_form(EnrolmentForm, json.dumps(fields).encode())
