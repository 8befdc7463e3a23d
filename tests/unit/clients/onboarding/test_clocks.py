"""A server whose clock is a day ahead, with TLS and a certificate valid from then on."""

from __future__ import annotations

import re
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from clients.onboarding.enrolment import EnrolmentError, register
from clients.onboarding.preflight import check
from f2l_fed.wire.kit import Kit
from server.pki.certificate_store import create_authority, issue
from tests.support.sites import digits_site


class FastClockHandler(BaseHTTPRequestHandler):
    """The replies of a server whose clock is a day ahead."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string((timestamp or time.time()) + 86400)

    def log_message(self, format: str, *args: object) -> None:
        """Writes nothing."""


def test_a_certificate_that_is_not_valid_yet_points_to_the_clock_and_not_to_another_server(
    tmp_path,
):
    ahead = datetime.now(UTC) + timedelta(days=1)
    create_authority(tmp_path / "ca", now=ahead)
    own = issue(tmp_path / "ca", "server", "server", now=ahead)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(own / "tls.crt", own / "tls.key")
    with HTTPServer(("127.0.0.1", 0), FastClockHandler) as tomorrow:
        tomorrow.socket = tls.wrap_socket(tomorrow.socket, server_side=True)
        thread = threading.Thread(target=tomorrow.serve_forever, args=(0.1,))
        thread.start()
        address = f"localhost:{tomorrow.server_port}"
        authority = (own / "ca.crt").read_text()
        kit = Kit.create(site="north", server=address, authority=authority, token="", expires="")
        with pytest.raises(EnrolmentError, match=r"not yet valid; here it is .* Check this mach"):
            register(kit, tmp_path / "site")
        more = f'[server]\naddress = "{address}"\nroot_certificates = "ca.crt"\n'
        (problem,) = check(digits_site(tmp_path / "site", more=more)).problems
        tomorrow.shutdown()
        thread.join()
    assert re.search(r"clock is 8(6400|6399|6398) s behind the server's", problem)
