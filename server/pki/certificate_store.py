"""The folder of the federation's certificate authority, and of the identities it issues.

::

    ca.crt ca.key                 the authority; the key never leaves the folder
    ca.crl                        its revoked certificates, see `server.pki.revocation`
    NAME/ca.crt tls.crt tls.key   an identity, see `server.pki.identity`

Sites make their own keys; the server keeps nothing private of them
(`server.membership.site_registry`).

A folder is written whole or not at all and is never overwritten. Folders and files are for their
owner alone (0700 and 0600).
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from f2l_fed.core.durable_files import fsync_folder, write_atomically
from f2l_fed.errors import ConfigError, WireError
from f2l_fed.wire.enrolment import AUTHORITY, CERTIFICATE, KEY
from server.pki.certificate_authority import (
    LONGEST_DAYS,
    CertificateAuthority,
    certificate_pem,
    private_pem,
)
from server.pki.identity import Credentials, Identity, Role, check_name

AUTHORITY_KEY = "ca.key"


def create_authority(
    folder: Path, *, days: int = LONGEST_DAYS, now: datetime | None = None
) -> None:
    """Creates a certificate authority in a folder that is absent or empty.

    Args:
        days: Validity; nothing that the authority issues outlives it.
        now: Start of the validity, with a time zone; by default the clock's.

    Raises:
        ConfigError: If the folder has content or can't be written, or the validity is invalid.
    """
    authority = CertificateAuthority.create(days=days, now=now or datetime.now(UTC))
    _write_folder(
        folder,
        {
            AUTHORITY: certificate_pem(authority.certificate),
            AUTHORITY_KEY: private_pem(authority.key),
        },
    )


def issue(
    folder: Path,
    name: str,
    role: Role,
    *,
    days: int = 365,
    hosts: Sequence[str] = (),
    now: datetime | None = None,
) -> Path:
    """Issues an identity; a name is issued once, in one role.

    Args:
        folder: Of the authority.
        days: Validity.
        hosts: Further host names and IP addresses of a server.
        now: Start of the validity, with a time zone; by default the clock's.

    Returns:
        The identity's folder, ready to be handed over as a whole.

    Raises:
        ConfigError: If name, role, validity or hosts are invalid, the name is in use, or there is
            no usable authority.
    """
    authority = read_authority(folder)
    certificate, key = authority.sign(
        Identity(name=name, role=role), days=days, now=now or datetime.now(UTC), hosts=hosts
    )
    root = certificate_pem(authority.certificate)
    return _write_folder(folder / name, {AUTHORITY: root, CERTIFICATE: certificate, KEY: key})


def certify_site(
    folder: Path,
    site: str,
    request: bytes,
    *,
    days: int,
    now: datetime | None = None,
) -> bytes:
    """Signs a site's certificate request; only its key is taken from it.

    Args:
        folder: Of the authority.
        site: Name of the site; the one in the request is ignored.
        request: Certificate signing request, PEM, for a key on the curve P-384.
        days: Validity.
        now: Start of the validity, with a time zone; by default the clock's.

    Returns:
        The certificate, PEM.

    Raises:
        WireError: If the request is invalid or not signed by its own key.
        ConfigError: If the name is invalid, or there is no usable authority.
    """
    try:
        parsed = x509.load_pem_x509_csr(request)
        public = parsed.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise WireError("not a certificate request", expected="PEM") from error
    if (
        not isinstance(public, ec.EllipticCurvePublicKey)
        or not isinstance(public.curve, ec.SECP384R1)
        or not parsed.is_signature_valid
    ):
        raise WireError(
            "the certificate request can't be signed",
            expected="a key on the curve P-384 and a signature by it",
        )
    identity = Identity(name=site, role="site")
    return read_authority(folder).certify(identity, public, days=days, now=now or datetime.now(UTC))


def replace_identity(
    folder: Path, name: str, *, days: int = 365, hosts: Sequence[str] = ()
) -> Path:
    """Gives an identity a new key and certificate of the same name and role.

    The old certificate is good until it ends or is revoked.

    Raises:
        ConfigError: As `issue`, or if there is no such identity.
    """
    before = Credentials.read(folder / check_name(name))
    identity = Identity.of(x509.load_pem_x509_certificate(before.certificate))
    authority = read_authority(folder)
    certificate, key = authority.sign(identity, days=days, now=datetime.now(UTC), hosts=hosts)
    # The key first: a reader in between gets a pair that does not match, and reads again.
    for file, data in ((KEY, key), (CERTIFICATE, certificate)):
        write_atomically(folder / name / file, data.decode(), mode=0o600)
    return folder / name


def read_authority(folder: Path) -> CertificateAuthority:
    """Reads the authority of a folder; raises ConfigError if there is no usable one."""
    try:
        return CertificateAuthority.parse(
            (folder / AUTHORITY).read_bytes(), (folder / AUTHORITY_KEY).read_bytes()
        )
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            "there is no usable certificate authority",
            where=str(folder),
            expected=f"{AUTHORITY} and {AUTHORITY_KEY}",
            got=str(error.strerror if isinstance(error, OSError) else error),
            remedy="Create one first, or restore it from a backup.",
        ) from error


def _write_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Writes a folder whole; the rename fails where one with content exists."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            for name, data in files.items():
                _write_private(draft / name, data)
            fsync_folder(draft)
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        fsync_folder(folder.parent)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise ConfigError(
                "the folder exists already and is never overwritten",
                where=str(folder),
                remedy="Choose another name, or move it away first.",
            ) from error
        raise ConfigError(
            "the folder can't be written", where=str(folder), got=str(error.strerror)
        ) from error
    return folder


def _write_private(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
