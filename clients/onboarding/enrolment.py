"""Registration of a site with its kit, and renewal of its keys and certificate."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from clients.onboarding.https_connection import failure_reason, https_connection
from clients.onboarding.keys import NEW, Keys, take_over
from clients.site.config import ServerConfig
from clients.site.sent_log import utc_now
from clients.site.site_folder import SiteFolder
from f2l_fed.core.durable_files import write_atomically
from f2l_fed.errors import F2LError, UsageError
from f2l_fed.wire.agreement import Agreement
from f2l_fed.wire.enrolment import (
    AUTHORITY,
    CERTIFICATE,
    ENROL_PATH,
    LARGEST_ANSWER_BYTES,
    RENEW_PATH,
    EnrolmentForm,
    FederationFacts,
    RenewalForm,
)
from f2l_fed.wire.kit import Kit
from f2l_fed.wire.protocol import LATEST

_NOT_VALID_NOW = (9, 10)
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""

_TIMEOUT_S = 30.0
_LONGEST_REASON = 400


class EnrolmentError(F2LError):
    """A request that the server refused, or a server that can't be reached."""


def register(kit: Kit, folder: Path) -> tuple[FederationFacts, Agreement | None]:
    """Makes a site's keys in a folder and registers them; may be repeated after a failure.

    Returns:
        The facts of the federation that the server has told, and the agreement about its task;
        None from an older server.

    Raises:
        UsageError: If the folder belongs to a registered site, or to another authority.
        EnrolmentError: If the server refuses or can't be reached.
    """
    if (folder / CERTIFICATE).exists():
        raise UsageError(
            "a site is registered in this folder already",
            where=str(folder),
            remedy="Choose another folder.",
        )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write_authority(folder / AUTHORITY, kit.authority)
    # An earlier try may have reached the server: only with the same keys it is answered again.
    if Keys.exist(folder):
        keys = Keys.read(folder)
    else:
        keys = Keys.make()
        keys.write(folder)
    form = EnrolmentForm(
        site=kit.site,
        token=kit.token,
        key=keys.public,
        request=keys.request(kit.site),
        protocol=LATEST,
    )
    reply = _post(ServerConfig(address=kit.server), folder, ENROL_PATH, form)
    write_atomically(folder / CERTIFICATE, _own_certificate(reply, keys), mode=0o600)
    try:
        agreement = Agreement.from_json(reply)
    except F2LError:
        # The site is registered; its check names what is damaged.
        agreement = None
    return FederationFacts.from_json(reply), agreement


def renew(site: SiteFolder, *, now: datetime, new_keys: bool = True) -> None:
    """Gets a site another certificate, by default for new keys; may be repeated after a failure.

    Args:
        site: The site.
        now: The time, with a time zone.
        new_keys: Whether to make new keys too.

    Raises:
        UsageError: If the site was not registered with a kit.
        EnrolmentError: If the server refuses or can't be reached.
    """
    folder = site.path
    if not site.server.certificate:
        raise UsageError(
            "this site has no certificate",
            where="[server] certificate",
            remedy="Ask the administrator for a kit.",
        )
    before = Keys.read(folder)
    if Keys.exist(folder, NEW):
        after = Keys.read(folder, NEW)
    else:
        after = Keys.make() if new_keys else before
        after.write(folder, NEW)
    name = site.config.name
    form = RenewalForm.signed(
        site=name,
        key=after.public,
        request=after.request(name),
        time=now,
        by=before.flower,
        protocol=LATEST,
    )
    reply = _post(site.server, folder, RENEW_PATH, form)
    write_atomically(folder / (CERTIFICATE + NEW), _own_certificate(reply, after), mode=0o600)
    take_over(folder)


def finish_renewal(folder: Path) -> None:
    """Completes a renewal that had its certificate already when it was cut."""
    if (folder / (CERTIFICATE + NEW)).exists():
        take_over(folder)


def _write_authority(path: Path, authority: str) -> None:
    """Writes the authority's certificate; one that is there already is never replaced."""
    if path.exists():
        if path.read_bytes().split() == authority.encode().split():
            return
        raise UsageError(
            "the folder belongs to a site of another federation",
            where=str(path),
            remedy="Choose another folder.",
        )
    write_atomically(path, authority)


def _post(
    server: ServerConfig, folder: Path, path: str, form: EnrolmentForm | RenewalForm
) -> dict[str, Any]:
    """Sends a form and returns the reply, which has a text "certificate"; nothing is checked."""
    context = ssl.create_default_context(cafile=folder / AUTHORITY)
    connection = https_connection(server, context, timeout_s=_TIMEOUT_S)
    try:
        connection.request(
            "POST", path, json.dumps(asdict(form)), {"content-type": "application/json"}
        )
        reply = connection.getresponse()
        body = reply.read(LARGEST_ANSWER_BYTES)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in _NOT_VALID_NOW:
            raise EnrolmentError(
                "the server's certificate is not valid at this machine's time",
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
            got=failure_reason(error, server),
            remedy="Check the network and whether the server runs, then try again.",
        ) from error
    finally:
        connection.close()
    try:
        values = dict(json.loads(body))
        if reply.status == 200:
            return {**values, "certificate": str(values["certificate"])}
        reason = str(values["error"])[:_LONGEST_REASON]
    except (ValueError, KeyError, TypeError, RecursionError):
        reason = f"status {reply.status}"
    raise EnrolmentError("the server refused", where=server.address, got=reason.rstrip("."))


def _own_certificate(reply: Mapping[str, Any], keys: Keys) -> bytes:
    """The certificate of a reply, PEM and nothing else; raises unless it is for the site's key."""
    try:
        certificate = x509.load_pem_x509_certificate(reply["certificate"].encode())
        fits = certificate.public_key() == keys.tls.public_key()
        pem = certificate.public_bytes(Encoding.PEM)
    except (ValueError, UnsupportedAlgorithm):
        fits = False
    if not fits:
        raise EnrolmentError("the server's reply is not a certificate for this site's key")
    return pem
