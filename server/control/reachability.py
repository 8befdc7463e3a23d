"""The reason why a control service can't be reached, found by trying step by step."""

from __future__ import annotations

import http.client
import socket
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from f2l_fed.core.addresses import split_address
from f2l_fed.core.proxies import proxy_to
from f2l_fed.wire.enrolment import AUTHORITY, CERTIFICATE, KEY

_TIMEOUT_S = 5.0
_NOT_VALID_NOW = (9, 10)
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""

_OTHER_HOST = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""


def fault(address: str, identity: Path) -> tuple[str, str]:
    """The fault of a connection to a control service and its remedy; both "" where none is found.

    Args:
        address: ``host:port``.
        identity: Folder of the caller's identity.

    Raises:
        ConfigError: If the address is malformed.
    """
    host, port = split_address(address, "--server")
    now = datetime.now(UTC)
    own = x509.load_pem_x509_certificate((identity / CERTIFICATE).read_bytes())
    if not own.not_valid_before_utc <= now <= own.not_valid_after_utc:
        return (
            f"the identity's certificate is valid from {own.not_valid_before_utc:%Y-%m-%d} until "
            f"{own.not_valid_after_utc:%Y-%m-%d} only",
            "Check this machine's clock; else have it renewed: f2l-server identity renew.",
        )
    try:
        with _connected(host, port) as plain:
            return _tls_fault(plain, host, identity)
    except socket.gaierror:
        return "no machine of this name is known", "Check the name, and the name server."
    except ConnectionRefusedError:
        return (
            "nothing listens there",
            "Check the port ([server] control), and whether f2l-server runs.",
        )
    except TimeoutError:
        return "the machine does not answer", "Check the address, and firewalls on the way."
    except OSError as error:
        return f"no connection ({error.strerror or error})", "Check the network."


def server_certificate(address: str, identity: Path) -> x509.Certificate | None:
    """The certificate that the service at an address shows; None where it shows none.

    Args:
        address: ``host:port``.
        identity: Folder of the caller's identity.
    """
    host, port = split_address(address, "--server")
    with suppress(OSError), _connected(host, port) as plain:
        with _context(identity).wrap_socket(plain, server_hostname=host) as secure:
            if shown := secure.getpeercert(binary_form=True):
                return x509.load_der_x509_certificate(shown)
    return None


def _connected(host: str, port: int) -> socket.socket:
    """An open connection, through the proxy that gRPC would take too."""
    if (proxy := proxy_to(host, port)) is None:
        return socket.create_connection((host, port), timeout=_TIMEOUT_S)
    tunnel = http.client.HTTPConnection(proxy.host, proxy.port, timeout=_TIMEOUT_S)
    tunnel.set_tunnel(host, port, proxy.headers)
    try:
        tunnel.connect()
    except OSError as error:
        raise OSError(f"{error.strerror or error}, through the proxy {proxy.address}") from error
    return tunnel.sock


def _tls_fault(plain: socket.socket, host: str, identity: Path) -> tuple[str, str]:
    try:
        with _context(identity).wrap_socket(plain, server_hostname=host) as secure:
            if secure.selected_alpn_protocol() != "h2":
                return _OTHER_SERVICE
            # In TLS 1.3 the server judges the caller's certificate after the handshake.
            if not secure.recv(1):
                return _REFUSED
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in _NOT_VALID_NOW:
            return (
                f"the server's certificate is not valid now ({error.verify_message})",
                "Check both clocks; else renew it: f2l-server identity renew central server.",
            )
        if error.verify_code in _OTHER_HOST:
            return (
                "the server's certificate is for another name",
                "Use the host name that [server] address has.",
            )
        return (
            f"this is not the federation's server ({error.verify_message})",
            "Check the address, and which identity --certificates and --name choose.",
        )
    except TimeoutError:
        return "the server does not answer", "Check whether the port is that of [server] control."
    except ssl.SSLError as error:
        if "ALERT" in (error.reason or ""):
            return _REFUSED
        return _OTHER_SERVICE
    except ConnectionResetError:
        return _REFUSED
    except OSError:
        return _OTHER_SERVICE
    return "", ""


_REFUSED = (
    "the server does not accept this identity",
    "Check which identity --certificates and --name choose, and whether it is an administrator's.",
)
_OTHER_SERVICE = (
    "another service listens there",
    "Check the port: it is that of [server] control, not the one for sites.",
)


def _context(identity: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=identity / AUTHORITY)
    context.load_cert_chain(identity / CERTIFICATE, identity / KEY)
    context.set_alpn_protocols(["h2"])
    return context
