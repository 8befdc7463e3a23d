"""The connection to the server: whether the site's configuration of it can be used."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from clients.onboarding.https_connection import failure_reason, https_connection
from clients.onboarding.keys import read_certificate
from clients.site.config import ServerConfig
from clients.site.site_folder import SiteFolder
from f2l_fed.admission.verdict import REASONS
from f2l_fed.core.wording import file_fault
from f2l_fed.errors import ConfigError, F2LError
from f2l_fed.wire.enrolment import CLOCK_TOLERANCE_S, LARGEST_ANSWER_BYTES, LAST_TASK, SELF_PATH
from f2l_fed.wire.refusals import reason_of

_TIMEOUT_S = 5.0
_NO_TIME_CHECK = 0x200000  # OpenSSL's X509_V_FLAG_NO_CHECK_TIME, for which Python has no name


def connection_problems(site: SiteFolder, *, connect: bool, now: datetime) -> list[str]:
    """The problems of the connection to the server, as sentences.

    Args:
        site: The site.
        connect: Also opens connections, asks for the server's time, and with a certificate
            whether the site is known; nothing else is sent.
        now: This machine's time, with a time zone.
    """
    problems, server = [], site.server
    try:
        require_address(server)
    except ConfigError as error:
        return [str(error)]
    try:
        context = _tls(site)
        if connect and (problem := _clock_problem(site, now)):
            # Any other problem may be a consequence of this one.
            return [problem]
        if context is not None and server.certificate:
            _load_certificate(context, site, now)
    except F2LError as error:
        problems.append(str(error))
    else:
        if connect and (problem := _reach_problem(server, context)):
            problems.append(problem)
    if server.private_key and (problem := _key_problem(site.path / server.private_key)):
        problems.append(problem)
    return problems


def federation_facts(site: SiteFolder, *, now: datetime) -> dict[str, Any]:
    """The facts that the server tells a known site, not checked; none if it can't be asked.

    Args:
        site: A site with a certificate, whose connection has no problem.
        now: This machine's time, with a time zone.
    """
    context = tls_of_site(site, now=now)
    if context is None:
        return {}
    connection = https_connection(site.server, context, timeout_s=_TIMEOUT_S)
    try:
        connection.request("GET", SELF_PATH)
        facts: Any = json.loads(connection.getresponse().read(LARGEST_ANSWER_BYTES))
    except (OSError, http.client.HTTPException, ValueError, RecursionError):
        return {}
    finally:
        connection.close()
    return facts if isinstance(facts, dict) else {}


def last_task(facts: Mapping[str, Any]) -> str:
    """The end of the site's last task as a sentence, by what the server tells; "" for none.

    Args:
        facts: From `federation_facts`.
    """
    told = facts.get(LAST_TASK)
    if not isinstance(told, dict) or type(told.get("round")) is not int:
        return ""
    code, finding = (str(told.get(name, "")) for name in ("code", "finding"))
    found = f": {REASONS[finding]}" if finding in REASONS else ""
    if code == "accepted":
        return f"round {told['round']}: accepted"
    if code == "unchanged":
        return f"round {told['round']}: nothing left to learn"
    reason = reason_of(code)
    return f"round {told['round']}: {reason.text}{found}. {reason.remedy}"


def tls_of_site(site: SiteFolder, *, now: datetime) -> ssl.SSLContext | None:
    """The TLS settings with the site's certificate; None for a site without one.

    Args:
        site: The site.
        now: This machine's time, with a time zone.

    Raises:
        ConfigError: If certificate, key or root certificates can't be used.
    """
    context = _tls(site)
    if context is None or not site.server.certificate:
        return None
    _load_certificate(context, site, now)
    return context


def require_address(server: ServerConfig) -> None:
    """Raises ConfigError unless there is an address to connect to."""
    if not server.address:
        raise ConfigError(
            "the server's address is missing",
            where="[server] address",
            expected="host:port",
            remedy="Ask the federation's administrator for it.",
        )


def _tls(site: SiteFolder) -> ssl.SSLContext | None:
    server = site.server
    if server.insecure:
        return None
    roots = site.path / server.root_certificates if server.root_certificates else None
    try:
        return ssl.create_default_context(cafile=roots)
    except OSError as error:
        raise ConfigError(
            "the root certificates can't be read",
            where=f"[server] root_certificates = {server.root_certificates!r}",
            expected="a file of certificates in PEM format",
            got=file_fault(error),
        ) from error


def seconds_ahead(site: SiteFolder, now: datetime) -> float | None:
    """Seconds that a time is ahead of the server's; None where it does not tell its own.

    Args:
        site: The site.
        now: This machine's time, with a time zone.

    Raises:
        ConfigError: If root certificates or proxy can't be used.
    """
    server_time = _server_time(site)
    return None if server_time is None else (now - server_time).total_seconds()


def _server_time(site: SiteFolder) -> datetime | None:
    context = _tls(site)
    if context is None:
        return None
    # With a wrong clock the server's certificate may seem to be not valid yet or any more.
    context.verify_flags |= _NO_TIME_CHECK
    connection = https_connection(site.server, context, timeout_s=_TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        return parsedate_to_datetime(connection.getresponse().getheader("date", ""))
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def _clock_problem(site: SiteFolder, now: datetime) -> str:
    """The difference between both clocks, as a sentence, where it is too large; or ""."""
    server_time = _server_time(site)
    if server_time is None:
        return ""
    ahead_s = (now - server_time).total_seconds()
    if abs(ahead_s) <= CLOCK_TOLERANCE_S:
        return ""
    relation = "ahead of" if ahead_s > 0 else "behind"
    return str(
        ConfigError(
            f"this machine's clock is {abs(ahead_s):.0f} s {relation} the server's",
            where=site.server.address,
            expected=f"at most {CLOCK_TOLERANCE_S} s",
            got=f"{now:%Y-%m-%d %H:%M:%S} here, {server_time:%Y-%m-%d %H:%M:%S} there, UTC",
            remedy="Set the clock that is wrong, for instance with timedatectl set-ntp true.",
        )
    )


def _load_certificate(context: ssl.SSLContext, site: SiteFolder, now: datetime) -> None:
    """Adds the site's certificate to a context; raises ConfigError if it can't be used."""
    server = site.server
    path = site.path / server.certificate
    certificate = read_certificate(path)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise ConfigError(
            "the site's certificate is not valid now",
            where=f"[server] certificate = {server.certificate!r}",
            expected=f"a time from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} "
            f"until {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
            got=f"{now:%Y-%m-%d %H:%M}",
            remedy="Check this machine's clock; if it is right, ask for a new kit.",
        )
    try:
        context.load_cert_chain(path, site.path / server.certificate_key)
    except OSError as error:
        raise ConfigError(
            "the site's certificate and key do not belong together",
            where=f"[server] certificate_key = {server.certificate_key!r}",
        ) from error


def _reach_problem(server: ServerConfig, context: ssl.SSLContext | None) -> str:
    if context is None:
        try:
            socket.create_connection(server.host_and_port, timeout=_TIMEOUT_S).close()
        except OSError as error:
            return f"{server.address}: the server can't be reached: {error.strerror or error}."
        return ""
    connection = https_connection(server, context, timeout_s=_TIMEOUT_S)
    try:
        connection.connect()
        return _membership_problem(server, connection) if server.certificate else ""
    except ssl.SSLCertVerificationError as error:
        return f"{server.address}: the server's certificate is refused: {error.verify_message}."
    except (OSError, http.client.HTTPException) as error:
        reason = failure_reason(error, server)
        return f"{server.address}: the server can't be reached: {reason}."
    finally:
        connection.close()


def _membership_problem(server: ServerConfig, connection: http.client.HTTPSConnection) -> str:
    connection.request("GET", SELF_PATH)
    try:
        status = connection.getresponse().status
    except (http.client.HTTPException, ValueError):
        status = 0
    if status == 200:
        return ""
    if status == 401:
        return (
            f"{server.address}: the server does not know this site, or has removed it. "
            "Ask the administrator."
        )
    return f"{server.address}: this is not the server of a federation."


def _key_problem(path: Path) -> str:
    where = f"[server] private_key = {path.name!r}"
    try:
        key = load_ssh_private_key(path.read_bytes(), None)
        if not isinstance(key, EllipticCurvePrivateKey):
            return f"{where}: not a key of an elliptic curve, as Flower needs."
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        return f"{where}: can't be read as an OpenSSH private key ({file_fault(error)})."
    if path.stat().st_mode & 0o077:
        return f"{where}: others can read it; run chmod 600 on it."
    return ""
