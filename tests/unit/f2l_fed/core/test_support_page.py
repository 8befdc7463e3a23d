"""The page for a support mail: no secrets, and the lines of a log that matter."""

from __future__ import annotations

import secrets

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from f2l_fed.core.support_page import Section, page_text, recent_errors, without_secrets

KEY = ec.generate_private_key(ec.SECP256R1()).private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
)


WORD, DIGITS = secrets.token_urlsafe(32), secrets.token_hex(32)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("http://ann:pass-word@proxy:3128", "pass-word"),
        ("ann:pass-word@proxy:3128", "pass-word"),
        ("Authorization: Basic YW5uOnB3", "YW5uOnB3"),
        ("token=abcdefgh", "abcdefgh"),
        ('"password": "open sesame"', "open"),
        (f"went to {WORD} again", WORD),
        (f"went to {DIGITS} again", DIGITS),
        (KEY.decode(), KEY.decode().splitlines()[1]),
        ("via http://ann:p@sw0rd@proxy", "sw0rd"),
        ("via http://ann:p@ss/w0rd@proxy", "w0rd"),
        ("ann:p@ss/w0rd@proxy", "w0rd"),
        ("http://tokenghp1234@proxy", "ghp1234"),
        ("AWS_SECRET_ACCESS_KEY=abcd/efgh+ijkl/mnop==", "mnop"),
        ("DB_PASS=abc", "abc"),
        ("token=abc12", "abc12"),
        ("--password abc12", "abc12"),
        ("password: 'hunter2 long'", "long"),
        ('"api_key": "a \\" quoted"', "quoted"),
        ("('authorization', 'Bearer ab12')", "ab12"),
        ("Authorization: Negotiate ab12", "ab12"),
    ],
    ids=range(20),
)
def test_secrets_are_left_out(text, secret):
    assert secret not in without_secrets(text)
    assert secret not in page_text("doctor", [Section("log", (("line", text),))])


@pytest.mark.parametrize(
    "text",
    [
        "fed.example.org:8443: the server can't be reached: unknown host name.",
        "/srv/federations/central/certificates/admin/tls.crt can't be read",
        "2 days left, until 2030-01-03",
        "via http://…@proxy:3128",
        "the token is bad",
    ],
)
def test_what_helps_stays(text):
    assert without_secrets(text) == text


def test_the_last_lines_that_tell_of_errors_are_shown(tmp_path):
    log = tmp_path / "daemon.log"
    assert recent_errors(log) == ()
    lines = [f"the SuperNode ended: {number}" for number in range(9)]
    log.write_text("\n".join([*lines, "INFO [error] all is well", "running", KEY.decode()]))
    assert recent_errors(log) == tuple(lines[-5:])
    assert recent_errors(tmp_path) == ("can't be read: Is a directory",)


def test_a_line_is_short_and_has_no_control_characters():
    text = page_text("doctor", [Section("log", (("", "\x1b[31m" + "x" * 9000),))])
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) < 250
