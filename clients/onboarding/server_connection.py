"""The way to the server: whether what the configuration says of it can be used."""

from __future__ import annotations

import http.client
import socket
import ssl
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from clients.onboarding.keys import certificate_of
from clients.site.config import ServerConfig
from f2l_fed.errors import ConfigError, F2LError

CLOCKS_MAY_DIFFER_S = 300
"""The server takes no request of a site whose clock is further off."""

_TIMEOUT_S = 5.0
_NO_TIME_CHECK = 0x200000  # OpenSSL's X509_V_FLAG_NO_CHECK_TIME, for which Python has no name


def problems_of(server: ServerConfig, folder: Path, *, connect: bool, now: datetime) -> list[str]:
    """What is wrong with the way to the server, as sentences.

    Args:
        server: What the configuration says.
        folder: The configuration's folder.
        connect: Also opens connections, asks for the server's time, and with a certificate
            whether the site is known; nothing else is sent.
        now: This machine's time, with a time zone.
    """
    problems = []
    try:
        require_address(server)
    except ConfigError as error:
        return [str(error)]
    try:
        context = _tls(server, folder)
        if connect and (apart := _clocks_apart(server, folder, now)):
            # Whatever else is wrong may come from that.
            return [apart]
        if context is not None and server.certificate:
            _show_certificate(context, server, folder, now)
    except F2LError as error:
        problems.append(str(error))
    else:
        if connect:
            problems += _unreachable(server, context)
    if server.private_key and (problem := _key_problem(folder / server.private_key)):
        problems.append(problem)
    return problems


def require_address(server: ServerConfig) -> None:
    """Raises ConfigError unless there is an address to connect to."""
    if not server.address:
        raise ConfigError(
            "no address of the server",
            where="[server] address",
            expected="host:port",
            remedy="Ask the federation's administrator for it.",
        )


def _tls(server: ServerConfig, folder: Path) -> ssl.SSLContext | None:
    if server.insecure:
        return None
    roots = folder / server.root_certificates if server.root_certificates else None
    try:
        return ssl.create_default_context(cafile=roots)
    except OSError as error:
        raise ConfigError(
            "can't read the root certificates",
            where=f"[server] root_certificates = {server.root_certificates!r}",
            expected="a file of certificates in PEM format",
            got=type(error).__name__,
        ) from error


def _unreachable(server: ServerConfig, context: ssl.SSLContext | None) -> list[str]:
    host, port = server.host_and_port
    try:
        with socket.create_connection((host, port), timeout=_TIMEOUT_S) as connection:
            if context is not None:
                with context.wrap_socket(connection, server_hostname=host) as secure:
                    if server.certificate:
                        return _unknown(server, secure)
    except ssl.SSLCertVerificationError as error:
        return [f"{server.address}: the server's certificate is refused: {error.verify_message}."]
    except OSError as error:
        return [f"{server.address}: the server can't be reached: {error.strerror or error}."]
    return []


def _clocks_apart(server: ServerConfig, folder: Path, now: datetime) -> str:
    """That this machine's clock and the server's differ too much; "" if not, or if none is told."""
    context = _tls(server, folder)
    if context is None:
        return ""
    # With a wrong clock the server's certificate may seem to be of another time.
    context.verify_flags |= _NO_TIME_CHECK
    host, port = server.host_and_port
    connection = http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=context)
    try:
        connection.request("GET", "/health")
        told = parsedate_to_datetime(connection.getresponse().getheader("date", ""))
    except (OSError, http.client.HTTPException, ValueError):
        return ""
    finally:
        connection.close()
    away_s = (now - told).total_seconds()
    if abs(away_s) <= CLOCKS_MAY_DIFFER_S:
        return ""
    way = "ahead of" if away_s > 0 else "behind"
    return str(
        ConfigError(
            f"this machine's clock is {abs(away_s):.0f} s {way} the server's",
            where=server.address,
            expected=f"at most {CLOCKS_MAY_DIFFER_S} s",
            got=f"{now:%Y-%m-%d %H:%M:%S} here, {told:%Y-%m-%d %H:%M:%S} there, UTC",
            remedy="Set the clock that is wrong, for instance with timedatectl set-ntp true.",
        )
    )


def _show_certificate(
    context: ssl.SSLContext, server: ServerConfig, folder: Path, now: datetime
) -> None:
    """Has a connection show the site's certificate; raises ConfigError if it can't stand."""
    path = folder / server.certificate
    certificate = certificate_of(path)
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
        context.load_cert_chain(path, folder / server.certificate_key)
    except OSError as error:
        raise ConfigError(
            "the site's certificate and key do not belong together",
            where=f"[server] certificate_key = {server.certificate_key!r}",
            got=type(error).__name__,
        ) from error


def _unknown(server: ServerConfig, secure: ssl.SSLSocket) -> list[str]:
    secure.sendall(b"GET /v1/site/me HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n")
    status = secure.recv(1024).split(b" ")[1:2]
    if status == [b"200"]:
        return []
    if status == [b"401"]:
        return [
            f"{server.address}: the server does not know this site, or has removed it. "
            "Ask the administrator."
        ]
    return [f"{server.address}: this is no server of a federation."]


def _key_problem(path: Path) -> str:
    where = f"[server] private_key = {path.name!r}"
    try:
        key = load_ssh_private_key(path.read_bytes(), None)
        if not isinstance(key, EllipticCurvePrivateKey):
            return f"{where}: not a key of an elliptic curve, as Flower needs."
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        return f"{where}: can't be read as an OpenSSH private key ({type(error).__name__})."
    if path.stat().st_mode & 0o077:
        return f"{where}: others can read it; run chmod 600 on it."
    return ""
