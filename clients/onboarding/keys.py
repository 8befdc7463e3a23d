"""A site's keys and certificate: made here, and nothing private ever leaves.

::

    flower.key flower.pub   the key by which Flower knows the site, OpenSSH format
    tls.key tls.crt         the site's TLS key and certificate, which the gateway asks for, PEM
    ca.crt                  the certificate of the authority that has signed the server's, PEM
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
from f2l_fed.core.wording import file_fault
from f2l_fed.errors import ConfigError
from f2l_fed.wire.enrolment import CERTIFICATE, KEY

FLOWER_KEY, FLOWER_PUBLIC = "flower.key", "flower.pub"
"""Names of the files with the SuperNode's key."""

NEW = ".new"
"""Ending of the files of a renewal that is not finished."""

AUTHORITY_VARIABLE = "F2L_SITE_AUTHORITY"
CERTIFICATE_VARIABLE = "F2L_SITE_CERTIFICATE"
KEY_VARIABLE = "F2L_SITE_KEY"
"""Environment variables that hand the paths of the PEM files to the SuperNode."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Keys:
    """A site's private keys, two on the curve P-384.

    Args:
        flower: Key of the SuperNode.
        tls: Key of the TLS connection.
    """

    flower: ec.EllipticCurvePrivateKey
    tls: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls) -> Keys:
        """Makes new keys."""
        curve = ec.SECP384R1()
        return cls(flower=ec.generate_private_key(curve), tls=ec.generate_private_key(curve))

    @classmethod
    def read(cls, folder: Path, ending: str = "") -> Keys:
        """Reads the keys in a folder.

        Args:
            folder: The folder.
            ending: Ending of the file names, "" or `NEW`.

        Raises:
            ConfigError: If they can't be read.
        """
        try:
            flower = load_ssh_private_key((folder / (FLOWER_KEY + ending)).read_bytes(), None)
            tls = load_pem_private_key((folder / (KEY + ending)).read_bytes(), None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ConfigError(
                "the site's keys can't be read",
                where=str(folder),
                expected=f"{FLOWER_KEY} and {KEY}",
                got=file_fault(error),
                remedy="Restore them from a backup, or ask for a new kit.",
            ) from error
        if not isinstance(flower, ec.EllipticCurvePrivateKey) or not isinstance(
            tls, ec.EllipticCurvePrivateKey
        ):
            raise ConfigError("the site's keys are of another kind", where=str(folder))
        return cls(flower=flower, tls=tls)

    @staticmethod
    def exist(folder: Path, ending: str = "") -> bool:
        """Whether a folder holds both keys; arguments as in `read`."""
        return all((folder / (name + ending)).exists() for name in (KEY, FLOWER_KEY))

    @property
    def public(self) -> str:
        """The SuperNode's public key, OpenSSH format."""
        key = self.flower.public_key()
        return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()

    def request(self, site: str) -> str:
        """A certificate signing request for the TLS key, PEM."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, site)])
        unsigned = x509.CertificateSigningRequestBuilder().subject_name(name)
        return unsigned.sign(self.tls, hashes.SHA384()).public_bytes(Encoding.PEM).decode()

    def write(self, folder: Path, ending: str = "") -> None:
        """Writes the keys into a folder, for this user alone; arguments as in `read`."""
        flower = self.flower.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        tls = self.tls.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_atomically(folder / (FLOWER_KEY + ending), flower, mode=0o600)
        write_atomically(folder / (KEY + ending), tls, mode=0o600)
        write_atomically(folder / (FLOWER_PUBLIC + ending), self.public + "\n", mode=0o600)


def take_over(folder: Path) -> None:
    """Puts the files of a renewal in the place of the old ones, the certificate last."""
    for name in (FLOWER_PUBLIC, FLOWER_KEY, KEY, CERTIFICATE):
        with suppress(FileNotFoundError):
            (folder / (name + NEW)).replace(folder / name)


def read_certificate(path: Path) -> x509.Certificate:
    """Reads a certificate; raises ConfigError if it can't be read."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(
            "the site's certificate can't be read", where=str(path), got=file_fault(error)
        ) from error


def remaining_share(certificate: x509.Certificate, now: datetime) -> float:
    """The remaining share of a certificate's validity, at most 1; below 0 it has expired."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return (end - now) / (end - begin)
