"""A site's requests for a network to the server's gateway, over HTTPS with its certificate."""

from __future__ import annotations

import http.client
import json
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime

from flwr.app import RecordDict

from clients.onboarding.https_connection import failure_reason, https_connection
from clients.onboarding.server_connection import tls_of_site
from clients.site.site_folder import SiteFolder
from f2l_fed.errors import F2LError, WireError
from f2l_fed.wire.enrolment import NETWORK_PATH, RECORDS_TYPE
from f2l_fed.wire.serialization import from_bytes, to_bytes

_CONNECT_S = 10.0
_ANSWER_S = 600.0
"""Longest wait for an answer: the server opens a release and draws networks meanwhile."""

_FRAMING_BYTES = 2**20
"""Names, fields and headers of a message, beside its tensors."""

_RELEASE = re.compile(r'"([A-Za-z0-9_-]{1,64})"')


class ServerUnavailable(F2LError):
    """A server can't be asked for a network: none is configured, none answers, or not for this."""


class NetworkRequests:
    """The requests of one site.

    Args:
        site: The site.
        now: This machine's time, with a time zone.

    Raises:
        ServerUnavailable: If the site has no server or no certificate.
        ConfigError: If the certificate can't be used.
    """

    def __init__(self, site: SiteFolder, *, now: datetime) -> None:
        self._site, self._tls = site, known_tls(site, now=now)

    def context_request(self) -> tuple[str, RecordDict]:
        """The promoted release's id and its packed request for a context.

        Raises:
            ServerUnavailable: If the server can't be reached or has no such service.
            F2LError: If it refuses.
            WireError: If its answer is malformed.
        """
        status, body, tag = self._exchange("GET", b"", {})
        found = _RELEASE.fullmatch(tag)
        if status != 200 or found is None:
            raise failure_of(self._site, status, body)
        return found[1], from_bytes(body)

    def task(self, release: str, context: RecordDict) -> RecordDict | None:
        """The packed task that a release has for a context; None if it is promoted no more.

        Raises:
            ServerUnavailable, F2LError, WireError: As of `context_request`.
        """
        headers = {"content-type": RECORDS_TYPE, "if-match": f'"{release}"'}
        status, body, _ = self._exchange("POST", to_bytes(context), headers)
        if status == 412:
            return None
        if status != 200:
            raise failure_of(self._site, status, body)
        return from_bytes(body)

    def _exchange(
        self, method: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, bytes, str]:
        """The status of an answer, its body and its tag."""
        most = self._site.config.policy.maximum_download_bytes + _FRAMING_BYTES
        with answer_of(self._site, self._tls, method, NETWORK_PATH, body, headers) as answer:
            content = answer.read(most + 1)
        if len(content) > most:
            raise WireError("the server's answer is too large", expected=f"at most {most} B")
        return answer.status, content, answer.getheader("etag", "")


def known_tls(site: SiteFolder, *, now: datetime) -> ssl.SSLContext:
    """The TLS settings of a site that its server knows; arguments and errors as of the class."""
    context = tls_of_site(site, now=now) if site.server.address else None
    if context is None:
        raise ServerUnavailable("the site has no server that knows it", where="[server]")
    return context


@contextmanager
def answer_of(
    site: SiteFolder,
    tls: ssl.SSLContext,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> Iterator[http.client.HTTPResponse]:
    """The server's answer to one request, open until the block ends.

    Raises:
        ServerUnavailable: If it can't be reached, or breaks off.
        F2LError: If certificates are refused.
    """
    server = site.server
    connection = https_connection(server, tls, timeout_s=_CONNECT_S)
    try:
        connection.connect()
        connection.sock.settimeout(_ANSWER_S)
        connection.request(method, path, body or None, dict(headers or {}))
        # An answer that is not read to its end keeps the socket otherwise.
        with closing(connection.getresponse()) as answer:
            yield answer
    except ssl.SSLError as error:
        raise F2LError(
            "server and site do not accept each other's certificates",
            where=server.address,
            got=getattr(error, "verify_message", "") or error.reason or type(error).__name__,
            remedy=f"Run f2l-site check {site.file}.",
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise ServerUnavailable(
            "the server can't be reached",
            where=server.address,
            got=failure_reason(error, server),
        ) from error
    finally:
        connection.close()


def failure_of(site: SiteFolder, status: int, body: bytes) -> F2LError:
    """The error that says why there is no network, by an answer's status and content."""
    where = site.server.address
    if status == 401:
        return F2LError(
            "the server does not know this site, or has removed it",
            where=where,
            remedy="Ask the administrator.",
        )
    if status in (404, 405) or status >= 500:
        return ServerUnavailable(
            "the server makes no networks for single sites now",
            where=where,
            got=f"status {status}",
        )
    try:
        reason = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        reason = f"status {status}"
    return F2LError("the server refused", where=where, got=reason.rstrip("."))
