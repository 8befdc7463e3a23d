"""The folder of the federation's certificate authority, and what is handed out from it.

::

    ca.crt ca.key                 the authority; the key never leaves the folder
    NAME/ca.crt tls.crt tls.key   an identity, see `server.identity`
    SITE/kit.tar                  all that a site needs, to be deleted here once it is delivered
    SITE/tls.crt flower.pub       what the server keeps of it: nothing private

``kit.tar`` holds ``ca.crt``, ``tls.crt``, ``tls.key``, ``flower.key`` and ``flower.pub`` (the
OpenSSH key pair of the site's SuperNode) and ``kit.json`` with ``format``, ``site``, ``server``.

Every folder appears complete or not at all and is never overwritten. Folders are for their owner
alone (0700), files too (0600).
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from f2l_fed.errors import ConfigError
from f2l_fed.files import fsync_folder
from server.authority import LONGEST_DAYS, Authority, certificate_pem, private_pem
from server.identity import AUTHORITY, CERTIFICATE, KEY, Identity, Role, check_name

AUTHORITY_KEY = "ca.key"
NODE_KEY = "flower.key"
NODE_PUBLIC_KEY = "flower.pub"
KIT = "kit.tar"

_KIT_FORMAT = 1
_ADDRESS = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})", re.ASCII)


def create_authority(
    folder: Path, *, days: int = LONGEST_DAYS, now: datetime | None = None
) -> None:
    """Creates a certificate authority in a folder that is absent or empty.

    Args:
        days: Validity; nothing that the authority issues outlives it.
        now: Start of the validity, with a time zone; by default the clock's.

    Raises:
        ConfigError: If the folder has content or can't be written, or the validity can't stand.
    """
    authority = Authority.create(days=days, now=now or datetime.now(UTC))
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
    """Issues an identity; a name is issued once, whatever its role.

    Args:
        folder: Of the authority.
        days: Validity.
        hosts: Further host names and IP addresses of a server.
        now: Start of the validity, with a time zone; by default the clock's.

    Returns:
        The identity's folder, ready to be handed over as a whole.

    Raises:
        ConfigError: If name, role, validity or hosts can't stand, the name is taken, or there is
            no usable authority.
    """
    authority = _read_authority(folder)
    certificate, key = authority.sign(
        Identity(name=name, role=role), days=days, now=now or datetime.now(UTC), hosts=hosts
    )
    root = certificate_pem(authority.certificate)
    return _write_folder(folder / name, {AUTHORITY: root, CERTIFICATE: certificate, KEY: key})


def site_kit(
    folder: Path, site: str, *, server: str, days: int = 365, now: datetime | None = None
) -> Path:
    """Makes all that a new site needs, as one tar file.

    Args:
        folder: Of the authority.
        site: Name of the site; used once.
        server: ``host:port`` that the site's SuperNode connects to.
        days: Validity of the certificate.
        now: Start of the validity, with a time zone; by default the clock's.

    Returns:
        The tar file. The public key beside it, ``flower.pub``, is what the SuperLink registers.

    Raises:
        ConfigError: As `issue`, or if the address isn't one.
    """
    check_name(site)
    address = _ADDRESS.fullmatch(server)
    if address is None or not 1 <= int(address[2]) <= 65535:
        raise ConfigError("no server address", expected="host:port", got=ascii(server[:80]))
    authority = _read_authority(folder)
    certificate, key = authority.sign(
        Identity(name=site, role="site"), days=days, now=now or datetime.now(UTC)
    )
    node = ec.generate_private_key(ec.SECP384R1())
    public = node.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b"\n"
    about = {"format": _KIT_FORMAT, "site": site, "server": server}
    kit = {
        AUTHORITY: certificate_pem(authority.certificate),
        CERTIFICATE: certificate,
        KEY: key,
        NODE_KEY: node.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
        NODE_PUBLIC_KEY: public,
        "kit.json": json.dumps(about, indent=1).encode() + b"\n",
    }
    kept = {KIT: _tar(kit), CERTIFICATE: certificate, NODE_PUBLIC_KEY: public}
    return _write_folder(folder / site, kept) / KIT


def _read_authority(folder: Path) -> Authority:
    try:
        return Authority.parse(
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


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o600
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


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
                "this is there already and is never overwritten",
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
