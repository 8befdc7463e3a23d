"""The sites of a federation: who was invited, who has registered with which key, who is out.

One file for each site, ``registry/NAME.json`` in the federation's folder. A site's name is used
once: records of a removed site stay in the zoo under its name until it is forgotten.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from f2l_fed.core.config_parsing import from_mapping
from f2l_fed.core.durable_files import write_atomically
from f2l_fed.core.locks import locked
from f2l_fed.errors import ConfigError, UsageError
from server.pki.identity import check_name

State = Literal["invited", "active", "removed"]
_LARGEST_KEY_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """What is known of a site.

    Args:
        name: Of the site.
        state: "invited" until its kit is used, then "active"; "removed" is final.
        added: When it was invited, ISO 8601.
        expires: When the kit ends.
        token: SHA-256 of the kit's token, in hexadecimal; "" once the site is removed.
        key: Public key of its SuperNode in OpenSSH format; "" before it has registered.
        serials: Serial numbers of its certificates in hexadecimal, separated by spaces.
        certificate: The latest of them, PEM.
        previous: The key before the present one; "" where it has never been changed.
    """

    name: str
    state: str
    added: str
    expires: str
    token: str = ""
    key: str = ""
    serials: str = ""
    certificate: str = ""
    previous: str = ""

    @property
    def serial_numbers(self) -> list[int]:
        """Of all its certificates, oldest first."""
        return [int(serial, 16) for serial in self.serials.split()]


class Refused(UsageError):
    """A site's request to register or renew that can't be granted."""


class SiteRegistry:
    """The folder of sites.

    Args:
        path: Created when the first site is invited.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def all(self) -> list[Enrolment]:
        """All sites, sorted by name.

        Raises:
            ConfigError: If a file is damaged.
        """
        return [self._read(path) for path in sorted(self._path.glob("[a-z0-9]*.json"))]

    def find(self, name: str) -> Enrolment | None:
        """A site; None where there is none of this name."""
        path = self._path / f"{check_name(name)}.json"
        return self._read(path) if path.exists() else None

    def invite(
        self, name: str, *, hours: int, now: datetime, replace: bool = False
    ) -> tuple[Enrolment | None, str]:
        """Adds a site, or gives one that has not registered yet another token.

        Args:
            name: Of the site.
            hours: How long the token can be used.
            now: With a time zone.
            replace: Also invites a registered site anew; its key and certificates are to be
                withdrawn by the caller.

        Returns:
            The site as it was before, and the token, which is kept nowhere else.

        Raises:
            UsageError: If the site has registered, or was removed.
        """
        with self._locked():
            known = self.find(name)
            again = known is None or known.state == "invited" or replace
            if known is not None and (known.state == "removed" or not again):
                raise UsageError(
                    "there is a site of this name already",
                    where=name,
                    got=known.state,
                    remedy="Choose another name."
                    if known.state == "removed"
                    else "Choose another name, or give it a new kit with --replace.",
                )
            token = secrets.token_urlsafe(32)
            site = Enrolment(
                name=name,
                state="invited",
                added=known.added if known else now.isoformat(timespec="seconds"),
                expires=(now + timedelta(hours=hours)).isoformat(timespec="seconds"),
                token=_digest(token),
            )
            self._write(site)
        return known, token

    def admit(self, name: str, token: str, key: str, *, now: datetime) -> Enrolment:
        """Whether a kit's token lets a site in; changes nothing.

        Args:
            name: That the kit is for.
            token: Of the kit.
            key: Public key of the site's SuperNode, OpenSSH format.
            now: With a time zone.

        Returns:
            The site; already active where the same kit comes again with the same key, since an
            answer may have been lost.

        Raises:
            Refused: If token, time or key can't stand.
        """
        site = self.find(name)
        # The same words whether the name or the token is wrong: neither can be found out.
        if site is None or not hmac.compare_digest(site.token, _digest(token)):
            raise Refused("the kit is not known here", remedy="Ask for a new one.")
        check_key(key)
        if site.state == "active" and site.key != key:
            raise Refused("the kit has been used already", remedy="Ask for a new one.")
        if now >= datetime.fromisoformat(site.expires):
            raise Refused(
                "the kit has expired", got=f"ended {site.expires}", remedy="Ask for a new one."
            )
        return site

    def enrol(
        self, name: str, token: str, key: str, certificate: str, serial: int, *, now: datetime
    ) -> Enrolment:
        """Registers a site with the token of its kit, once.

        Args:
            name, token, key, now: As in `admit`.
            certificate: That was made for it, PEM.
            serial: Of the certificate.

        Raises:
            Refused: If it can't be granted.
        """
        with self._locked():
            site = self.admit(name, token, key, now=now)
            if site.state == "active":
                raise Refused("the kit has been used already", remedy="Ask for a new one.")
            self._require_new(key)
            site = dataclasses.replace(
                site, state="active", key=key, serials=f"{serial:x}", certificate=certificate
            )
            self._write(site)
            return site

    def renew(
        self, name: str, key: str, certificate: str, serial: int
    ) -> tuple[Enrolment, Enrolment]:
        """Gives an active site another key and certificate.

        Returns:
            The site before and after.
        """
        with self._locked():
            site = self.active(name)
            if key != site.key:
                self._require_new(check_key(key))
            after = dataclasses.replace(
                site,
                key=key,
                serials=f"{site.serials} {serial:x}".strip(),
                certificate=certificate,
                previous=site.key,
            )
            self._write(after)
            return site, after

    def remove(self, name: str) -> Enrolment:
        """Takes a site out for good; returns it as it was.

        Raises:
            UsageError: If there is none.
        """
        with self._locked():
            site = self.find(name)
            if site is None:
                raise UsageError("there is no such site", where=name)
            if site.state != "removed":
                self._write(dataclasses.replace(site, state="removed", token=""))
            return site

    def active(self, name: str) -> Enrolment:
        """A site that has registered; raises Refused for any other."""
        site = self.find(name)
        if site is None or site.state != "active":
            raise Refused("this site is not registered", where=name)
        return site

    def _require_new(self, key: str) -> None:
        if any(other.key == key for other in self.all()):
            raise Refused("this key is another site's", remedy="Make a new one.")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._path.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(self._path / ".lock"):
            yield

    def _write(self, site: Enrolment) -> None:
        text = json.dumps(dataclasses.asdict(site), indent=1) + "\n"
        write_atomically(self._path / f"{site.name}.json", text, mode=0o600)

    def _read(self, path: Path) -> Enrolment:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(
                "the site's registration is damaged",
                where=str(path),
                got=str(error),
                remedy="Restore it from a backup.",
            ) from error
        return from_mapping(Enrolment, values, where=str(path))


def check_key(key: str) -> str:
    """Returns a public key as Flower takes it: OpenSSH format, on the curve P-384, no comment.

    Raises:
        Refused: If it is another kind.
    """
    try:
        fits = len(key) < _LARGEST_KEY_BYTES and len(key.split()) == 2 and key == key.strip()
        parsed = load_ssh_public_key(key.encode()) if fits else None
    except (ValueError, UnsupportedAlgorithm):
        parsed = None
    if not isinstance(parsed, ec.EllipticCurvePublicKey) or parsed.curve.name != "secp384r1":
        raise Refused("no public key", expected="OpenSSH format, on the curve P-384")
    return key


def utc_now() -> datetime:
    """The registry's clock."""
    return datetime.now(UTC)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
