"""The kit of a site: the one file with which it registers, checked before any of it is used.

Where the federation adapts a pretrained backbone, the backbone's file may follow in the kit's.

A kit may come from anybody until its fingerprint has been compared, and it decides where files are
written, whom the site trusts and what is shown of it. So each field has exactly one form.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from f2l_fed.core.addresses import split_address
from f2l_fed.core.config_parsing import from_mapping
from f2l_fed.errors import ConfigError
from f2l_fed.wire.enrolment import NAME_RULE, is_name

KIT_FORMAT = 2
"""Version of the kit's fields."""

LARGEST_KIT_BYTES = 64 * 1024
"""Size above which a file is not a kit; what follows it does not count."""

KIT_END = b"\n}\n"
"""Last bytes of a kit that something follows, which occur nowhere else in it."""

SHORT_DIGITS = 16
"""Number of the fingerprint's digits that people compare."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{32,128}")
_LABELS = re.compile(r"[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*")
_LONGEST_HOST = 253
_ASK_AGAIN = "Ask the administrator for it again."
_ASK_NEW = "Ask the administrator for a new one."


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Kit:
    """A site's kit: with it a site registers, once and for a limited time.

    Args:
        format: `KIT_FORMAT`.
        site: Name that the site will have.
        server: ``host:port`` of the server.
        authority: Certificate of the authority that has signed the server's, PEM.
        token: Secret that lets its holder register as the site, 32 to 128 of A-Z, a-z, 0-9, - and
            _.
        expires: End of the kit's validity, ISO 8601 to the second with a time zone.
        fingerprint: SHA-256 of all other fields, in hexadecimal.
        backbone: Digest of the backbone whose file follows; "" where nothing follows.
    """

    format: int
    site: str
    server: str
    authority: str
    token: str
    expires: str
    fingerprint: str
    backbone: str = ""

    @classmethod
    def create(
        cls,
        *,
        site: str,
        server: str,
        authority: str,
        token: str,
        expires: str,
        backbone: str = "",
    ) -> Kit:
        """Makes a kit of the present format; arguments as the fields."""
        kit = cls(
            format=KIT_FORMAT,
            site=site,
            server=server,
            authority=authority,
            token=token,
            expires=expires,
            fingerprint="",
            backbone=backbone,
        )
        return replace(kit, fingerprint=_digest(kit))

    @classmethod
    def parse(cls, content: bytes, *, where: str, now: datetime | None = None) -> Kit:
        """Reads the content of a kit's file, and checks all of it.

        Args:
            content: The content.
            where: The file, for errors.
            now: The time, with a time zone; None reads a kit that has expired too.

        Raises:
            ConfigError: If it is not a kit, was altered, has an invalid field or has expired.
        """
        try:
            values: Any = json.loads(content) if len(content) < LARGEST_KIT_BYTES else None
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise ConfigError("the file is not a kit", where=where, remedy=_ASK_AGAIN)
        if values.get("format") != KIT_FORMAT:
            raise ConfigError(
                "the kit has another format",
                where=where,
                expected=f"format {KIT_FORMAT}",
                got=str(values.get("format"))[:20],
                remedy="Install the version that the federation's server has.",
            )
        kit = from_mapping(cls, values, where=where)
        if _digest(kit) != kit.fingerprint:
            raise ConfigError("the kit was altered", where=where, remedy=_ASK_NEW)
        kit._require_valid(where)
        if now is not None and now >= datetime.fromisoformat(kit.expires):
            raise ConfigError(
                "the kit has expired",
                where=where,
                got=f"ended {kit.expires}",
                remedy="Ask the administrator for a new one, and check this machine's clock.",
            )
        return kit

    def to_json(self) -> bytes:
        """The content of the kit's file, or the beginning of it."""
        return json.dumps(_fields(self), indent=1).encode() + b"\n"

    @property
    def short_fingerprint(self) -> str:
        """The digits that administrator and site compare, by telephone for instance."""
        return self.fingerprint[:SHORT_DIGITS]

    def require_fingerprint(self, text: str, *, where: str) -> None:
        """Requires that the kit has the fingerprint that the administrator has told.

        Args:
            text: The fingerprint, or its first `SHORT_DIGITS` digits; spaces, colons and the case
                of letters do not matter.
            where: The file, for errors.

        Raises:
            ConfigError: If it has another one, or the text is not a fingerprint.
        """
        digits = re.sub(r"[\s:]", "", text).lower()
        if re.fullmatch(r"[0-9a-f]{16}|[0-9a-f]{64}", digits) is None:
            raise ConfigError(
                "not a fingerprint",
                where="--fingerprint",
                expected=f"its {len(self.fingerprint)} digits, or the first {SHORT_DIGITS}",
                got=ascii(text[:80]),
                remedy="The administrator's `f2l-admin site add` has shown it.",
            )
        if digits not in (self.fingerprint, self.short_fingerprint):
            raise ConfigError(
                "the kit has another fingerprint than the administrator's",
                where=where,
                expected=digits,
                got=self.fingerprint[: len(digits)],
                remedy="Do not use it, and tell the administrator.",
            )

    def _require_valid(self, where: str) -> None:
        """Raises ConfigError unless each field has its one form."""
        for name, fits, expected in (
            ("site", is_name(self.site), NAME_RULE),
            ("server", _is_address(self.server), "host:port"),
            ("authority", _is_authority(self.authority), "one certificate of an authority, PEM"),
            ("token", _TOKEN.fullmatch(self.token), "32 to 128 of A-Z, a-z, 0-9, '-' and '_'"),
            ("expires", _is_time(self.expires), "ISO 8601 to the second, with a time zone"),
            ("backbone", _is_digest(self.backbone), "64 hexadecimal digits, or nothing"),
        ):
            if not fits:
                # Not the token: errors are written to logs.
                got = "" if name in ("authority", "token") else ascii(getattr(self, name)[:80])
                raise ConfigError(
                    f"the kit's field {name} is not valid",
                    where=where,
                    expected=expected,
                    got=got,
                    remedy="Do not use it, and ask the administrator for a new one.",
                )


def _fields(kit: Kit) -> dict[str, Any]:
    """The fields by name; that of a backbone only where there is one, as before there were any."""
    return {name: value for name, value in asdict(kit).items() if name != "backbone" or value}


def _digest(kit: Kit) -> str:
    plain = {name: value for name, value in _fields(kit).items() if name != "fingerprint"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _is_digest(text: str) -> bool:
    return not text or _DIGEST.fullmatch(text) is not None


def _is_address(text: str) -> bool:
    try:
        host, port = split_address(text, "server")
    except ConfigError:
        return False
    # Longer ones, and empty labels, are no host names.
    labels = _LABELS.fullmatch(host) is not None and len(host) <= _LONGEST_HOST
    return port > 0 and (labels or ":" in host)


def _is_time(text: str) -> bool:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return False
    # Python reads more than one form, even with a control character between date and time.
    return time.tzinfo is not None and time.isoformat(timespec="seconds") == text


def _is_authority(text: str) -> bool:
    """Whether a text is the certificate of one authority and nothing else."""
    try:
        (certificate,) = x509.load_pem_x509_certificates(text.encode())
        alone = certificate.public_bytes(Encoding.PEM).decode() == text.strip(" \r\n") + "\n"
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return False
    return alone and constraints.value.ca
