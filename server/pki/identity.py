"""Identities: a name and a role in the subject of a certificate, and the files that prove them.

An identity is a folder of three PEM files: the authority's certificate, the identity's own and
its private key. Its owner needs nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from cryptography import x509
from cryptography.x509.oid import NameOID

from f2l_fed.errors import ConfigError
from f2l_fed.wire.enrolment import AUTHORITY, CERTIFICATE, KEY, NAME_RULE, is_name

Role = Literal["server", "admin", "viewer", "site"]
ROLES: tuple[Role, ...] = get_args(Role)


def check_name(name: str) -> str:
    """Returns a name that is valid in a folder, a host name and a certificate.

    Raises:
        ConfigError: If it is not.

    >>> check_name("line-7")
    'line-7'
    """
    if not is_name(name):
        raise ConfigError(
            "invalid name",
            expected=NAME_RULE,
            got=ascii(name[:80]),
        )
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A name and a role.

    Args:
        name: Common name of the certificate's subject.
        role: Its organisational unit.
    """

    name: str
    role: Role

    def subject(self) -> x509.Name:
        """The subject of its certificate."""
        return x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "F2L-Fed"),
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, self.role),
                x509.NameAttribute(NameOID.COMMON_NAME, self.name),
            ]
        )

    @classmethod
    def of(cls, certificate: x509.Certificate) -> Identity:
        """Reads the subject of a certificate whose signature has been verified.

        Raises:
            ConfigError: If it does not have exactly one name and one known role.
        """
        subject = certificate.subject
        names = [str(a.value) for a in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        units = subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
        roles = [role for unit in units for role in ROLES if role == unit.value]
        if len(names) != 1 or len(units) != 1 or len(roles) != 1:
            raise ConfigError(
                "the certificate's subject is not an identity",
                expected=f"one name and one role of {', '.join(ROLES)}",
                got=ascii(subject.rfc4514_string()[:200]),
            )
        return cls(name=names[0], role=roles[0])


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Credentials:
    """The content of an identity's folder.

    Args:
        authority: PEM, the certificate that must have signed the other side's.
        certificate: PEM.
        key: PEM, private.
    """

    authority: bytes
    certificate: bytes
    key: bytes

    @property
    def role(self) -> Role:
        """Role that the certificate names."""
        return Identity.of(x509.load_pem_x509_certificate(self.certificate)).role

    @property
    def serial(self) -> int:
        """Serial number of the certificate."""
        return x509.load_pem_x509_certificate(self.certificate).serial_number

    @classmethod
    def read(cls, folder: Path) -> Credentials:
        """Raises ConfigError if a file can't be read."""
        try:
            return cls(
                authority=(folder / AUTHORITY).read_bytes(),
                certificate=(folder / CERTIFICATE).read_bytes(),
                key=(folder / KEY).read_bytes(),
            )
        except OSError as error:
            raise ConfigError(
                "the identity can't be read",
                where=str(folder),
                expected=f"{AUTHORITY}, {CERTIFICATE} and {KEY}",
                got=str(error.strerror),
                remedy="Have the identity issued, and check that this user may read it.",
            ) from error


def read_certificate(path: Path, name: str) -> x509.Certificate:
    """Reads a certificate; raises ConfigError unless it is one of this name."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(
            "the certificate can't be read", where=str(path), expected="a file in PEM format"
        ) from error
    if (found := Identity.of(certificate).name) != name:
        raise ConfigError(
            "the certificate is another identity's", where=str(path), expected=name, got=found
        )
    return certificate
