"""Authentication of sites at the gateway: certificate, revocations and registered key."""

from __future__ import annotations

import base64
import binascii
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key, load_ssh_public_key

from f2l_fed.errors import ConfigError
from server.pki.identity import Identity, check_name
from server.pki.revocation import Revocations


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticatedSite:
    """A site with a certificate whose signature the handshake has verified.

    Args:
        name: Of the site.
        serial: Of its certificate.
    """

    name: str
    serial: int


class SiteAuth:
    """Authenticates sites against the federation's folder, read again for every request.

    Args:
        root: The federation's folder.
    """

    def __init__(self, root: Path) -> None:
        self._registry = root / "registry"
        self._revoked = Revocations(root / "certificates")

    def site_of(self, connection: ssl.SSLObject | None) -> AuthenticatedSite | None:
        """The site that a connection's certificate names; None without a site's certificate."""
        shown = connection.getpeercert(binary_form=True) if connection else None
        if not shown:
            return None
        try:
            certificate = x509.load_der_x509_certificate(shown)
            identity = Identity.of(certificate)
            check_name(identity.name)
        except (ValueError, ConfigError):
            return None
        if identity.role != "site":
            return None
        return AuthenticatedSite(name=identity.name, serial=certificate.serial_number)

    def is_registered(self, site: AuthenticatedSite | None) -> bool:
        """Whether a site is registered and its certificate not revoked."""
        return site is not None and self._registered_key(site) is not None

    def authorizes(self, site: AuthenticatedSite | None, key: bytes) -> bool:
        """Whether a site is registered, not revoked, and uses its own key.

        Args:
            site: From `site_of` when the connection began.
            key: Public key that the request claims, PEM in base64, as Flower sends it.
        """
        if site is None:
            return False
        try:
            claimed = load_pem_public_key(base64.b64decode(key, validate=True))
        except (ValueError, binascii.Error, UnsupportedAlgorithm):
            return False
        registered = self._registered_key(site)
        return registered is not None and bool(registered == claimed)

    def _registered_key(self, site: AuthenticatedSite) -> Any:
        """The key that an active site has registered; None for any other."""
        try:
            if site.serial in self._revoked:
                return None
            path = self._registry / f"{site.name}.json"
            known = json.loads(path.read_text(encoding="utf-8"))
            if known["state"] != "active":
                return None
            return load_ssh_public_key(known["key"].encode())
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            UnsupportedAlgorithm,
            ConfigError,
        ):
            # A registration that can't be read authenticates nobody.
            return None
