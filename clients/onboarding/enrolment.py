"""Registering a site with its kit, and renewing its keys and certificate."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from clients.onboarding import keys
from clients.onboarding.keys import Keys
from clients.onboarding.kit import Kit
from clients.site.config import ServerConfig, SiteConfig
from clients.site.sent_log import utc_now
from f2l_fed.core.durable_files import write_atomically
from f2l_fed.errors import F2LError, UsageError

NEW = ".new"
_OF_ANOTHER_TIME = (9, 10)
# OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED
_TIMEOUT_S = 30.0
_LARGEST_ANSWER_BYTES = 64 * 1024


class EnrolmentError(F2LError):
    """The server refused, or can't be reached."""


def register(kit: Kit, folder: Path) -> None:
    """Makes a site's keys in a folder and has them registered; may be repeated after a failure.

    Raises:
        UsageError: If the folder belongs to a registered site.
        EnrolmentError: If the server refuses or can't be reached.
    """
    if (folder / keys.CERTIFICATE).exists():
        raise UsageError(
            "a site is registered in this folder already",
            where=str(folder),
            remedy="Choose another folder.",
        )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(folder / keys.AUTHORITY, kit.authority)
    # An earlier try may have reached the server: only with the same keys it is answered again.
    started = (folder / keys.TLS_KEY).exists() and (folder / keys.FLOWER_KEY).exists()
    own = Keys.read(folder) if started else Keys.make()
    if not started:
        own.write(folder)
    form = {
        "site": kit.site,
        "token": kit.token,
        "key": own.public,
        "request": own.request(kit.site),
    }
    certificate = _ask(ServerConfig(address=kit.server), folder / keys.AUTHORITY, "enrol", form)
    _require_own(certificate, own)
    write_atomically(folder / keys.CERTIFICATE, certificate, mode=0o600)


def renew(config: SiteConfig, folder: Path, *, now: datetime, new_keys: bool = True) -> None:
    """Gets a site another certificate, by default for new keys; may be repeated after a failure.

    Args:
        config: The site's configuration.
        folder: The configuration's folder.
        now: With a time zone.
        new_keys: Whether the keys are made anew too.

    Raises:
        UsageError: If the site was not registered by a kit.
        EnrolmentError: If the server refuses or can't be reached.
    """
    server = config.server
    if not server.certificate:
        raise UsageError(
            "this site has no certificate",
            where="[server] certificate",
            remedy="Ask the administrator for a kit.",
        )
    before = Keys.read(folder)
    if (folder / (keys.TLS_KEY + NEW)).exists() and (folder / (keys.FLOWER_KEY + NEW)).exists():
        after = Keys.read(folder, NEW)
    else:
        after = Keys.make() if new_keys else before
        after.write(folder, NEW)
    form = {
        "site": config.name,
        "key": after.public,
        "request": after.request(config.name),
        "time": now.isoformat(timespec="seconds"),
    }
    text = json.dumps(["renew", form["site"], form["key"], form["request"], form["time"]]).encode()
    signature = before.flower.sign(text, ec.ECDSA(hashes.SHA384()))
    form["signature"] = base64.b64encode(signature).decode()
    certificate = _ask(server, folder / keys.AUTHORITY, "renew", form)
    _require_own(certificate, after)
    write_atomically(folder / (keys.CERTIFICATE + NEW), certificate, mode=0o600)
    keys.take_over(folder, NEW)


def finish_renewal(folder: Path) -> None:
    """After a crash: takes over a renewal that had its certificate already."""
    if (folder / (keys.CERTIFICATE + NEW)).exists():
        keys.take_over(folder, NEW)


def _ask(server: ServerConfig, authority: Path, what: str, form: dict[str, str]) -> str:
    """The certificate that the server answers with."""
    host, port = server.host_and_port
    context = ssl.create_default_context(cafile=authority)
    connection = http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=context)
    try:
        connection.request(
            "POST",
            f"/v1/site/{what}",
            json.dumps(form),
            {"content-type": "application/json"},
        )
        answer = connection.getresponse()
        body = answer.read(_LARGEST_ANSWER_BYTES)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in _OF_ANOTHER_TIME:
            raise EnrolmentError(
                "the server's certificate is of another time",
                where=server.address,
                got=f"{error.verify_message}; here it is {utc_now():%Y-%m-%d %H:%M} UTC",
                remedy="Check this machine's clock; if it is right, tell the administrator.",
            ) from error
        raise EnrolmentError(
            "this is not the server that the kit is for",
            where=server.address,
            got=error.verify_message,
            remedy="Ask the administrator; send nothing to it.",
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise EnrolmentError(
            "the server can't be reached",
            where=server.address,
            got=str(getattr(error, "strerror", "") or type(error).__name__),
            remedy="Check the network and whether the server runs, then try again.",
        ) from error
    finally:
        connection.close()
    try:
        values: Any = json.loads(body)
        if answer.status == 200:
            return str(values["certificate"])
        reason = str(values["error"])
    except (ValueError, KeyError, TypeError):
        reason = f"status {answer.status}"
    raise EnrolmentError("the server refused", where=server.address, got=reason.rstrip("."))


def _require_own(certificate: str, own: Keys) -> None:
    try:
        fits = x509.load_pem_x509_certificate(certificate.encode()).public_key() == (
            own.tls.public_key()
        )
    except ValueError:
        fits = False
    if not fits:
        raise EnrolmentError("the server sent a certificate that is not for this site's key")
