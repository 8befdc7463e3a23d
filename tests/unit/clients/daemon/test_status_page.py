"""The daemon's page, over HTTP."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import re
import socket
from dataclasses import asdict
from pathlib import Path

import pytest

from clients.daemon.status import Status
from clients.daemon.status_page import serving_page
from clients.site.sent_log import SentLog, utc_now
from f2l_fed.errors import ConfigError
from f2l_fed.wire.messages import Refusal
from f2l_fed.wire.packing import pack_refusal
from tests.support.deployment import free_ports
from tests.support.sites import digits_site
from tests.support.waiting import PATIENCE_S


def site_with_a_past(folder: Path) -> Path:
    """A site whose daemon waits, and which has refused one task."""
    site = digits_site(folder, more='[server]\naddress = "fed.example.org:8443"\n')
    state = folder / "state"
    state.mkdir()
    status = Status(
        state="stopped",
        since="2026-01-02T03:04:05+00:00",
        daemon=os.getpid(),
        supernode=0,
        restarts=3,
        last_end="exit code 1, after saying: <script>alert(1)</script>",
        server="fed.example.org:8443",
        problem="the server can't be reached.",
    )
    (state / "daemon.json").write_text(json.dumps(asdict(status)))
    refusal = pack_refusal(Refusal(site="north", code="too-few-examples"))
    SentLog(state / "sent.jsonl").record("refusal", 0, refusal, utc_now())
    (folder / "tls.key").write_text("a secret")
    return site


def get(port: int, path: str = "/", *, host: str = "", method: str = "GET"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer, text


def test_the_page_shows_the_status_and_what_has_left(tmp_path):
    (port,) = free_ports(1)
    with serving_page(site_with_a_past(tmp_path), port):
        answer, text = get(port)
    assert answer.status == 200
    for words in (
        "Site north",
        "<b class=stopped>stopped</b> since 2026-01-02 03:04:05",
        "fed.example.org:8443",
        "<p class=problem>the server can&#x27;t be reached.</p>",
        "<dt>restarts<dd>3",
        "<dt>answers in 24 hours<dd>0 of 1000 allowed",
        "<td>too-few-examples</td>",
        "The last message was refused: the site has too few examples. Add examples, or lower "
        "[policy] minimum_examples in site.toml.</p>",
        "1 message",
    ):
        assert words in text, words
    assert "<script" not in text
    assert "a secret" not in text
    # A column without a word is left out.
    assert "<th class=n>norm</th>" not in text


def test_the_page_runs_no_script_and_is_not_cached(tmp_path):
    (port,) = free_ports(1)
    with serving_page(site_with_a_past(tmp_path), port):
        answer, text = get(port)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.S)
    policy = answer.headers["Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert "unsafe" not in policy
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Server"] == "f2l-site"
    assert "http" not in re.sub("http-equiv", "", text)


def test_only_this_machine_by_its_own_name_gets_the_page_and_nobody_changes_anything(tmp_path):
    (port,) = free_ports(1)
    with serving_page(site_with_a_past(tmp_path), port):
        assert get(port, host=f"localhost:{port}")[0].status == 200
        for host in (f"evil.example:{port}", "localhost.evil.example", f"127.0.0.1.nip:{port}"):
            answer, text = get(port, host=host)
            assert (answer.status, text) == (421, "This page is served to this machine alone.")
        assert get(port, "/tls.key")[0].status == 404
        assert get(port, "/../tls.key")[0].status == 404
        assert get(port, method="POST")[0].status == 501
        # Another address of this machine, such as that of its network card, is not listened on.
        with socket.socket() as other:
            other.settimeout(5)
            assert other.connect_ex(("127.0.0.2", port)) != 0


def test_a_taken_port_is_reported_in_one_sentence(tmp_path):
    site = site_with_a_past(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match="the page can't be served"), serving_page(site, port):
            raise AssertionError("it is served")


def test_the_page_shows_examples_only_where_the_site_asks_for_it(tmp_path):
    (port,) = free_ports(1)
    site = digits_site(tmp_path)
    with serving_page(site, port):
        assert get(port, "/data")[0].status == 404
        site.write_text(f"page_data = true\n{site.read_text()}")
        assert "href=/data" in get(port)[1]
        answer, text = get(port, "/data")
        assert answer.status == 200
        assert text.count("<img ") == 10
        assert "<td>0</td><td class=n>10</td><td class=n>2</td>" in text
        assert "img-src data:" in answer.headers["Content-Security-Policy"]
        (tmp_path / "train.npz").write_text("<script>")
        answer, text = get(port, "/data")
        assert answer.status == 500
        assert "<script" not in text
