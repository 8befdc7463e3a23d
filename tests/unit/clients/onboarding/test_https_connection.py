"""All connections of a site to its server go through the proxy that the environment names."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from clients.daemon.supernode_main import SiteClient
from clients.onboarding.enrolment import EnrolmentError, register
from clients.onboarding.server_connection import connection_problems
from clients.site.sent_log import utc_now
from clients.site.site_folder import SiteFolder
from f2l_fed.wire.kit import Kit
from server.pki.certificate_store import create_authority, issue
from tests.support.proxy import ConnectProxy
from tests.support.sites import digits_site

NAME = "fed.closed-network.invalid"
"""A name that only the proxy knows."""


class Refusing(BaseHTTPRequestHandler):
    """A server that answers every request with a refusal."""

    def do_GET(self) -> None:
        self.send_error(403)

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Writes nothing."""


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    create_authority(tmp_path / "ca")
    return issue(tmp_path / "ca", "server", "server", hosts=(NAME,))


@pytest.fixture
def proxy(authority: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ConnectProxy]:
    """The only way to the server."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(authority / "tls.crt", authority / "tls.key")
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.1,))
        thread.start()
        with ConnectProxy(NAME, server.server_port) as way:
            monkeypatch.setenv("https_proxy", f"http://ann:pass@127.0.0.1:{way.port}")
            monkeypatch.setenv("no_proxy", "")
            yield way
        server.shutdown()
        thread.join()


def site_of(tmp_path: Path, authority: Path) -> SiteFolder:
    more = f'[server]\naddress = "{NAME}:8443"\nroot_certificates = "{authority / "ca.crt"}"\n'
    return SiteFolder.read(digits_site(tmp_path / "site", more=more))


def test_registration_check_and_supernode_take_the_same_way(tmp_path, authority, proxy):
    kit = Kit.create(
        site="north",
        server=f"{NAME}:8443",
        authority=(authority / "ca.crt").read_text(),
        token="",
        expires="",
    )
    with pytest.raises(EnrolmentError, match=r"the server refused: got status 403"):
        register(kit, tmp_path / "north")
    registered = len(proxy.requests)
    site = site_of(tmp_path, authority)
    assert connection_problems(site, connect=True, now=utc_now()) == []
    checked = len(proxy.requests)
    verify = ssl.create_default_context(cafile=authority / "ca.crt")
    client = SiteClient(f"https://{NAME}:8443", verify=verify)
    assert client._client.get(f"https://{NAME}:8443/health").status_code == 403
    client.close()
    assert 0 < registered < checked < len(proxy.requests)
    for request in proxy.requests:
        assert request.startswith(f"CONNECT {NAME}:8443 HTTP/1.")
        assert "proxy-authorization: basic yw5uonbhc3m=" in request.lower()


def test_a_site_without_the_proxy_or_with_a_broken_one_is_told_so(
    tmp_path, authority, proxy, monkeypatch
):
    site = site_of(tmp_path, authority)
    monkeypatch.setenv("https_proxy", "http://ann:pass@127.0.0.1:9")
    (problem,) = connection_problems(site, connect=True, now=utc_now())
    assert problem.endswith("Connection refused, through the proxy 127.0.0.1:9.")
    monkeypatch.delenv("https_proxy")
    (problem,) = connection_problems(site, connect=True, now=utc_now())
    assert f"{NAME}:8443: the server can't be reached: unknown host name" in problem
    monkeypatch.setenv("https_proxy", "socks5://127.0.0.1:9")
    (problem,) = connection_problems(site, connect=True, now=utc_now())
    assert "expected http://host:port" in problem
