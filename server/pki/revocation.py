"""Revoked certificates: a list signed by the authority, ``ca.crl`` in its folder.

An nginx reads the same file as ``ssl_crl``. The list only ever grows.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from f2l_fed.core.durable_files import write_atomically
from f2l_fed.core.locks import locked
from f2l_fed.errors import ConfigError
from f2l_fed.wire.enrolment import AUTHORITY
from server.pki.certificate_store import read_authority

REVOCATIONS = "ca.crl"


def revoke(folder: Path, serials: Collection[int], *, now: datetime | None = None) -> None:
    """Adds certificates to the list; the next request of each is refused.

    Threads and processes that revoke at the same time wait for each other.

    Args:
        folder: Of the authority.
        serials: Their serial numbers; an empty collection writes a first list.
        now: With a time zone; by default the clock's.

    Raises:
        ConfigError: If there is no usable authority, or the present list is damaged.
    """
    authority = read_authority(folder)
    lock = folder / f".{REVOCATIONS}.lock"
    # For the owner alone, as all files here.
    lock.touch(mode=0o600)
    with locked(lock):
        known = _read(folder / REVOCATIONS, folder / AUTHORITY)
        listed = authority.revocations({*known, *serials}, now=now or datetime.now(UTC))
        write_atomically(folder / REVOCATIONS, listed.decode(), mode=0o600)


class Revocations:
    """The present list, read again whenever the file has changed.

    Args:
        folder: With the list and the authority's certificate; its key is not needed.
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._authority = folder / REVOCATIONS, folder / AUTHORITY
        self._read_at: tuple[int, int, int] | None = None
        self._serials: frozenset[int] = frozenset()

    def __contains__(self, serial: object) -> bool:
        """Raises ConfigError where the list is damaged: then no certificate can be trusted."""
        try:
            status = self._path.stat()
            version = (status.st_mtime_ns, status.st_size, status.st_ino)
        except FileNotFoundError:
            version = None
        if version != self._read_at:
            self._serials = _read(self._path, self._authority)
            self._read_at = version
        return serial in self._serials


def _read(path: Path, authority: Path) -> frozenset[int]:
    if not path.exists():
        return frozenset()
    try:
        listed = x509.load_pem_x509_crl(path.read_bytes())
        issuer = x509.load_pem_x509_certificate(authority.read_bytes()).public_key()
        valid = listed.is_signature_valid(issuer)  # type: ignore[arg-type]
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(path) from error
    if not valid:
        raise _damaged(path)
    return frozenset(entry.serial_number for entry in listed)


def _damaged(path: Path) -> ConfigError:
    return ConfigError(
        "the list of revoked certificates is damaged",
        where=str(path),
        expected="a list that the authority has signed",
        remedy="Restore it from a backup; until then everyone is refused.",
    )
