"""The enrolment protocol between server and sites: kit, registration, renewal.

The administrator hands a site its kit, one JSON file. The site makes its keys, and posts an
`EnrolmentForm` with the kit's token to `ENROL_PATH` over TLS, where the server must show a
certificate that the kit's authority has signed. Later it posts a `RenewalForm`, signed by its key
so far, to `RENEW_PATH`. Both are answered with ``{"certificate": PEM}`` or ``{"error": sentence}``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from typing import Any, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from f2l_fed.core.config_parsing import from_mapping
from f2l_fed.errors import ConfigError, WireError

AUTHORITY = "ca.crt"
"""Name of the PEM file with the authority's certificate, in every identity's folder."""

CERTIFICATE = "tls.crt"
"""Name of the PEM file with the identity's own certificate."""

KEY = "tls.key"
"""Name of the PEM file with the private key of that certificate."""

KIT_FORMAT = 2
"""Version of the kit's fields."""

CLOCK_TOLERANCE_S = 300
"""Largest difference between the clocks of a site and the server, either way."""

ENROL_PATH = "/v1/site/enrol"
RENEW_PATH = "/v1/site/renew"
SELF_PATH = "/v1/site/me"
"""Paths of the gateway: registration, renewal, and whether the caller is a known site."""

NAME_RULE = "1 to 63 of a-z, 0-9 and '-', not starting with '-'"
"""Rule for names of sites and other identities, as errors state it; see `is_name`."""

LARGEST_KIT_BYTES = 64 * 1024
"""Size above which a file is not a kit."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
LARGEST_FORM_BYTES = 16 * 1024
"""Size above which a request is not a form."""


def is_name(text: str) -> bool:
    """Whether a text is fit for a folder, a host name and a certificate.

    >>> is_name("line-7"), is_name("Line 7")
    (True, False)
    """
    return _NAME.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Kit:
    """A site's kit: with it a site registers, once and for a limited time.

    Args:
        format: `KIT_FORMAT`.
        site: Name that the site will have.
        server: ``host:port`` of the server.
        authority: Certificate of the authority that has signed the server's, PEM.
        token: Secret that lets its holder register as the site.
        expires: End of the kit's validity, ISO 8601 with a time zone.
        fingerprint: SHA-256 of all other fields, in hexadecimal.
    """

    format: int
    site: str
    server: str
    authority: str
    token: str
    expires: str
    fingerprint: str

    @classmethod
    def create(cls, *, site: str, server: str, authority: str, token: str, expires: str) -> Kit:
        """Makes a kit of the present format; arguments as the fields."""
        kit = cls(
            format=KIT_FORMAT,
            site=site,
            server=server,
            authority=authority,
            token=token,
            expires=expires,
            fingerprint="",
        )
        return replace(kit, fingerprint=_fingerprint(asdict(kit)))

    @classmethod
    def parse(cls, content: bytes, *, where: str, now: datetime) -> Kit:
        """Reads the content of a kit's file.

        Args:
            content: The content.
            where: The file, for errors.
            now: The time, with a time zone.

        Raises:
            ConfigError: If it is not a kit, was altered or has expired.
        """
        try:
            values: Any = json.loads(content)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise ConfigError(
                "the file is not a kit", where=where, remedy="Ask the administrator for it again."
            )
        if values.get("format") != KIT_FORMAT:
            raise ConfigError(
                "the kit has another format",
                where=where,
                expected=f"format {KIT_FORMAT}",
                got=str(values.get("format"))[:20],
                remedy="Install the version that the federation's server has.",
            )
        kit = from_mapping(cls, values, where=where)
        if not kit._is_intact():
            raise ConfigError(
                "the kit was altered", where=where, remedy="Ask the administrator for a new one."
            )
        if now >= datetime.fromisoformat(kit.expires):
            raise ConfigError(
                "the kit has expired",
                where=where,
                got=f"ended {kit.expires}",
                remedy="Ask the administrator for a new one, and check this machine's clock.",
            )
        return kit

    def to_json(self) -> bytes:
        """The content of the kit's file."""
        return json.dumps(asdict(self), indent=1).encode() + b"\n"

    @property
    def short_fingerprint(self) -> str:
        """The digits that administrator and site compare, by telephone for instance."""
        return self.fingerprint[:16]

    def _is_intact(self) -> bool:
        try:
            expires = datetime.fromisoformat(self.expires)
            x509.load_pem_x509_certificate(self.authority.encode())
        except ValueError:
            return False
        return _fingerprint(asdict(self)) == self.fingerprint and expires.tzinfo is not None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class EnrolmentForm:
    """A site's request to be registered.

    Args:
        site: Name of the site.
        token: Token of its kit.
        key: Public key of its SuperNode, OpenSSH format.
        request: Certificate signing request for its TLS key, PEM.
    """

    site: str
    token: str
    key: str
    request: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RenewalForm:
    """A registered site's request for a new certificate and, where it has changed, a new key.

    Args:
        site: Name of the site.
        key: Public key of its SuperNode from now on, OpenSSH format.
        request: Certificate signing request for its TLS key from now on, PEM.
        time: Time of the request, ISO 8601 with a time zone.
        signature: ECDSA with SHA-384 over `text` by the SuperNode's key so far, Base64.
    """

    site: str
    key: str
    request: str
    time: str
    signature: str = ""

    @property
    def text(self) -> bytes:
        """The text that is signed."""
        return json.dumps(["renew", self.site, self.key, self.request, self.time]).encode()

    def is_signed_by(self, key: str) -> bool:
        """Whether the signature is by a public key, OpenSSH format.

        Raises:
            binascii.Error: If the signature is not Base64.
        """
        signature = base64.b64decode(self.signature, validate=True)
        try:
            public = load_ssh_public_key(key.encode())
            if not isinstance(public, ec.EllipticCurvePublicKey):
                return False
            public.verify(signature, self.text, ec.ECDSA(hashes.SHA384()))
        except (InvalidSignature, ValueError, UnsupportedAlgorithm):
            return False
        return True

    @classmethod
    def signed(
        cls, *, site: str, key: str, request: str, time: datetime, by: ec.EllipticCurvePrivateKey
    ) -> RenewalForm:
        """Makes a form and signs it with the SuperNode's key so far; arguments as the fields."""
        stamp = time.isoformat(timespec="seconds")
        text = cls(site=site, key=key, request=request, time=stamp).text
        signature = base64.b64encode(by.sign(text, ec.ECDSA(hashes.SHA384()))).decode()
        return cls(site=site, key=key, request=request, time=stamp, signature=signature)


Form = TypeVar("Form", EnrolmentForm, RenewalForm)


def parse_form(kind: type[Form], body: bytes) -> Form:
    """Reads a form from the body of an HTTP request.

    Raises:
        WireError: If it is not a form of this kind.
    """
    try:
        values: Any = json.loads(body) if len(body) <= LARGEST_FORM_BYTES else None
    except (ValueError, RecursionError):
        values = None
    names = {field.name for field in fields(kind)}
    if not isinstance(values, dict) or set(values) != names:
        raise WireError("the request has another form", expected=", ".join(sorted(names)))
    if not all(isinstance(value, str) for value in values.values()):
        raise WireError("the request has another form", expected="text alone")
    return kind(**values)


def _fingerprint(kit: dict[str, Any]) -> str:
    plain = {name: value for name, value in kit.items() if name != "fingerprint"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
