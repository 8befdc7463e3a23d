"""Certificates of a federation's server and administrators that end soon, told weeks ahead."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from cryptography import x509

from f2l_fed.core.wording import number_of
from f2l_fed.wire.enrolment import AUTHORITY, CERTIFICATE
from server.pki.certificate_store import AUTHORITY_KEY

WARNING_DAYS = 30
"""Days before the end of a certificate from which on it is warned of."""


def certificate_end(path: Path) -> datetime | None:
    """The end of the certificate in a PEM file, in UTC; None where it can't be read."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except (OSError, ValueError):
        return None


def certificate_ends(certificates: Path) -> dict[str, datetime]:
    """The end of each certificate in the authority's folder, by name of the identity, in UTC.

    The authority's own has the name "authority". One that can't be read is left out; identities
    that were handed over, and their folders deleted, are not there.

    Args:
        certificates: Folder of the authority.
    """
    files = {"authority": certificates / AUTHORITY}
    files |= {path.parent.name: path for path in sorted(certificates.glob(f"*/{CERTIFICATE}"))}
    found = {name: certificate_end(path) for name, path in files.items()}
    return {name: end for name, end in found.items() if end is not None}


def expiry_warnings(certificates: Path, now: datetime) -> tuple[str, ...]:
    """A sentence with the remedy for each certificate that ends within 30 days, or has ended.

    Args:
        certificates: Folder of the authority, as in `certificate_ends`.
        now: The time, with a time zone.
    """
    warnings = []
    for name, end in certificate_ends(certificates).items():
        days = (end - now).total_seconds() / 86400
        if days > WARNING_DAYS:
            continue
        when = f"ends in {number_of(round(days), 'day')}" if days > 0 else "has ended"
        owner = "authority" if name == "authority" else f"identity {name}"
        remedy = (
            f"make a new federation folder ({AUTHORITY_KEY} ends with it) and new kits"
            if name == "authority"
            else f"renew it: f2l-server identity renew {certificates.parent} {name}"
        )
        warnings.append(f"the certificate of the {owner} {when}, on {end:%Y-%m-%d}; {remedy}.")
    return tuple(warnings)
