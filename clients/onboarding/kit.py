"""A site's kit: the one file with which it registers, once and for a limited time."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from f2l_fed.core.config_parsing import from_mapping
from f2l_fed.errors import ConfigError

FORMAT = 2
_LARGEST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Kit:
    """What a kit says.

    Args:
        format: Of the file.
        site: Name that the site will have.
        server: ``host:port`` that it connects to.
        authority: Certificate of the authority that vouches for the server, PEM.
        token: Lets whoever has it register as the site.
        expires: When it ends, ISO 8601.
        fingerprint: SHA-256 of all the others.
    """

    format: int
    site: str
    server: str
    authority: str
    token: str
    expires: str
    fingerprint: str

    @property
    def short_fingerprint(self) -> str:
        """What people compare."""
        return self.fingerprint[:16]


def read_kit(path: Path, *, now: datetime) -> Kit:
    """Reads a kit.

    Args:
        path: The file.
        now: With a time zone.

    Raises:
        ConfigError: If it is no kit, was altered or has expired.
    """
    try:
        with path.open("rb") as file:
            values: Any = json.loads(file.read(_LARGEST_BYTES))
        if not isinstance(values, dict):
            raise ValueError("no table of values")
    except (OSError, ValueError) as error:
        raise ConfigError(
            "this is no kit", where=str(path), remedy="Ask the administrator for it again."
        ) from error
    if values.get("format") != FORMAT:
        raise ConfigError(
            "this kit is of another version",
            where=str(path),
            expected=f"format {FORMAT}",
            got=str(values.get("format"))[:20],
            remedy="Install the version that the federation's server has.",
        )
    kit = from_mapping(Kit, values, where=str(path))
    plain = {name: value for name, value in values.items() if name != "fingerprint"}
    whole = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
    try:
        expires = datetime.fromisoformat(kit.expires)
        x509.load_pem_x509_certificate(kit.authority.encode())
        sound = whole == kit.fingerprint and expires.tzinfo is not None
    except ValueError:
        sound = False
    if not sound:
        raise ConfigError(
            "the kit was altered", where=str(path), remedy="Ask the administrator for a new one."
        )
    if now >= expires:
        raise ConfigError(
            "the kit has expired",
            where=str(path),
            got=f"ended {kit.expires}",
            remedy="Ask the administrator for a new one, and check this machine's clock.",
        )
    return kit
