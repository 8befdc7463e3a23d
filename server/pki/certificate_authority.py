"""A certificate authority: its key, and the certificates it signs. Pure: no files."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from f2l_fed.errors import ConfigError
from f2l_fed.wire.enrolment import CLOCK_TOLERANCE_S
from server.pki.identity import ROLES, Identity, check_name

LONGEST_DAYS = 3650

_SKEW = timedelta(seconds=CLOCK_TOLERANCE_S)
_HOST = re.compile(r"[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CertificateAuthority:
    """A self-signed certificate and its private key, EC P-384."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, *, days: int, now: datetime) -> CertificateAuthority:
        """Makes a new one that can sign identities but no further authority.

        Args:
            days: Validity; nothing that it issues outlives it.
            now: Start of the validity, with a time zone.

        Raises:
            ConfigError: If the validity is invalid.
        """
        key = ec.generate_private_key(ec.SECP384R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "F2L-Fed authority")])
        draft = (
            _draft(name, name, key.public_key(), now, _end(now, days))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
        )
        return cls(certificate=draft.sign(key, hashes.SHA384()), key=key)

    @classmethod
    def parse(cls, certificate: bytes, key: bytes) -> CertificateAuthority:
        """Reads it from PEM.

        Raises:
            ValueError: If these are not a certificate and its EC key.
        """
        parsed = x509.load_pem_x509_certificate(certificate)
        private = load_pem_private_key(key, password=None)
        if (
            not isinstance(private, ec.EllipticCurvePrivateKey)
            or private.public_key() != parsed.public_key()
        ):
            raise ValueError("the key is not the certificate's")
        return cls(certificate=parsed, key=private)

    def sign(
        self, identity: Identity, *, days: int, now: datetime, hosts: Sequence[str] = ()
    ) -> tuple[bytes, bytes]:
        """Makes a key and signs it.

        Args:
            days: Validity, cut to the authority's own.
            now: Start of the validity, with a time zone.
            hosts: Further host names and IP addresses of a server, which always answers to its
                name, localhost and 127.0.0.1.

        Returns:
            Certificate and private key, both PEM.

        Raises:
            ConfigError: If name, role, validity or hosts are invalid, or the authority has expired.
        """
        key = ec.generate_private_key(ec.SECP384R1())
        certificate = self.certify(identity, key.public_key(), days=days, now=now, hosts=hosts)
        return certificate, private_pem(key)

    def certify(
        self,
        identity: Identity,
        public: ec.EllipticCurvePublicKey,
        *,
        days: int,
        now: datetime,
        hosts: Sequence[str] = (),
    ) -> bytes:
        """Signs a key that was made elsewhere; see `sign`.

        Returns:
            The certificate as PEM.
        """
        check_name(identity.name)
        serves = identity.role == "server"
        if identity.role not in ROLES:
            raise ConfigError("unknown role", expected=", ".join(ROLES), got=ascii(identity.role))
        if hosts and not serves:
            raise ConfigError("only a server has host names", got=f"role {identity.role}")
        last = self.certificate.not_valid_after_utc
        if last <= now:
            raise ConfigError("the certificate authority has expired", got=f"ended {last:%Y-%m-%d}")
        end = min(_end(now, days), last)
        # Without this line between purposes, a site could pose as the server.
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if serves else ExtendedKeyUsageOID.CLIENT_AUTH
        names = (identity.name, "localhost", "127.0.0.1", *hosts) if serves else (identity.name,)
        certificate = (
            _draft(identity.subject(), self.certificate.subject, public, now, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in names]),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
            .sign(self.key, hashes.SHA384())
        )
        return certificate_pem(certificate)

    def revocations(self, serials: Collection[int], *, now: datetime) -> bytes:
        """A signed list of revoked certificates, as PEM.

        Args:
            serials: Their serial numbers.
            now: With a time zone. The list is valid until the next one, as long as the authority.
        """
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - _SKEW)
            .next_update(self.certificate.not_valid_after_utc)
        )
        for serial in sorted(serials):
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self.key, hashes.SHA384()).public_bytes(Encoding.PEM)


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """A certificate as PEM."""
    return certificate.public_bytes(Encoding.PEM)


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as PEM, not encrypted: daemons start without a person."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _end(now: datetime, days: int) -> datetime:
    if not 1 <= days <= LONGEST_DAYS:
        raise ConfigError("invalid validity", expected=f"1 to {LONGEST_DAYS} days", got=str(days))
    return now + timedelta(days=days)


def _draft(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    now: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    with suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(host))
    if _HOST.fullmatch(host) is None:
        raise ConfigError(
            "invalid host name", expected="a DNS name or an IP address", got=ascii(host)
        )
    return x509.DNSName(host)
