"""A site's keys and certificate: made here, and nothing private ever leaves.

::

    flower.key flower.pub   the key by which Flower knows the site, OpenSSH format
    tls.key tls.crt         the key and certificate that open the server's front, PEM
    ca.crt                  the authority that vouches for the server
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)
from cryptography.x509.oid import NameOID

from f2l_fed.core.durable_files import write_atomically
from f2l_fed.errors import ConfigError

FLOWER_KEY, FLOWER_PUBLIC = "flower.key", "flower.pub"
TLS_KEY, CERTIFICATE, AUTHORITY = "tls.key", "tls.crt", "ca.crt"

CERTIFICATE_FILE, KEY_FILE = "F2L_SITE_CERTIFICATE", "F2L_SITE_KEY"
AUTHORITY_FILE = "F2L_SITE_AUTHORITY"
"""Environment variables that tell the SuperNode where the files are."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Keys:
    """Two private keys on the curve P-384.

    Args:
        flower: For the SuperNode.
        tls: For the connection.
    """

    flower: ec.EllipticCurvePrivateKey
    tls: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls) -> Keys:
        """New ones."""
        curve = ec.SECP384R1()
        return cls(flower=ec.generate_private_key(curve), tls=ec.generate_private_key(curve))

    @classmethod
    def read(cls, folder: Path, ending: str = "") -> Keys:
        """Those in a folder.

        Args:
            folder: Where.
            ending: Of their file names.

        Raises:
            ConfigError: If they can't be read.
        """
        try:
            flower = load_ssh_private_key((folder / (FLOWER_KEY + ending)).read_bytes(), None)
            tls = load_pem_private_key((folder / (TLS_KEY + ending)).read_bytes(), None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ConfigError(
                "the site's keys can't be read",
                where=str(folder),
                expected=f"{FLOWER_KEY} and {TLS_KEY}",
                got=type(error).__name__,
                remedy="Restore them from a backup, or ask for a new kit.",
            ) from error
        if not isinstance(flower, ec.EllipticCurvePrivateKey) or not isinstance(
            tls, ec.EllipticCurvePrivateKey
        ):
            raise ConfigError("the site's keys are of another kind", where=str(folder))
        return cls(flower=flower, tls=tls)

    @property
    def public(self) -> str:
        """The SuperNode's public key, OpenSSH format."""
        key = self.flower.public_key()
        return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()

    def request(self, site: str) -> str:
        """A request for a certificate, PEM."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, site)])
        signed = x509.CertificateSigningRequestBuilder().subject_name(name)
        return signed.sign(self.tls, hashes.SHA384()).public_bytes(Encoding.PEM).decode()

    def write(self, folder: Path, ending: str = "") -> None:
        """Into a folder, for this user alone."""
        flower = self.flower.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        tls = self.tls.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_atomically(folder / (FLOWER_KEY + ending), flower.decode(), mode=0o600)
        write_atomically(folder / (TLS_KEY + ending), tls.decode(), mode=0o600)
        write_atomically(folder / (FLOWER_PUBLIC + ending), self.public + "\n", mode=0o600)


def take_over(folder: Path, ending: str) -> None:
    """Puts files with an ending in the place of those without, the certificate last."""
    for name in (FLOWER_PUBLIC, FLOWER_KEY, TLS_KEY, CERTIFICATE):
        with suppress(FileNotFoundError):
            (folder / (name + ending)).replace(folder / name)


def certificate_of(path: Path) -> x509.Certificate:
    """Reads a certificate; raises ConfigError if it can't."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(
            "the site's certificate can't be read", where=str(path), got=type(error).__name__
        ) from error


def share_left(certificate: x509.Certificate, now: datetime) -> float:
    """How much of a certificate's validity is left, at most 1; below 0 it has ended."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return (end - now) / (end - begin)
