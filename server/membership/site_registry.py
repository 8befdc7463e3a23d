"""The registry of a federation's sites: invited, active and removed ones, with their keys.

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

from f2l_fed.core.config_parsing import from_mapping
from f2l_fed.core.durable_files import write_atomically
from f2l_fed.core.locks import locked
from f2l_fed.errors import ConfigError, UsageError
from f2l_fed.wire.protocol import OLDEST
from server.pki.identity import check_name
from server.pki.site_keys import canonical_key, is_same_key

State = Literal["invited", "active", "removed"]
_NOBODY = '{"name": "-", "state": "removed", "added": "", "expires": ""}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """The registration of a site.

    Args:
        name: Of the site.
        state: "invited" until its kit is used, then "active"; "removed" is final.
        added: Time of its first invitation, ISO 8601.
        expires: End of the kit's validity, ISO 8601.
        token: SHA-256 of the kit's token, in hexadecimal; "" once the site is removed.
        key: Public key of its SuperNode in OpenSSH format; "" before it has registered.
        serials: Serial numbers of its certificates in hexadecimal, separated by spaces.
        certificate: The latest of them, PEM.
        previous: The key before the latest renewal; "" before the first.
        protocol: Highest version of the wire protocol that the site has named.
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
    protocol: int = OLDEST

    @property
    def serial_numbers(self) -> list[int]:
        """Serial numbers of all its certificates, oldest first."""
        return [int(serial, 16) for serial in self.serials.split()]


class Refused(UsageError):
    """A site's request to register or renew that is refused."""


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
        """The registration of a site; None if there is no site of this name."""
        path = self._path / f"{check_name(name)}.json"
        return self._read(path) if path.exists() else None

    def find_or_nobody(self, name: str) -> Enrolment:
        """The registration of a site; for an unknown name, after like work, one without keys."""
        known = self.find(name)
        return known or from_mapping(Enrolment, json.loads(_NOBODY), where=name)

    def invite(
        self, name: str, *, hours: int, now: datetime, replace: bool = False
    ) -> tuple[Enrolment | None, str]:
        """Adds a site, or gives one that has not registered yet another token.

        Args:
            name: Of the site.
            hours: Validity of the token.
            now: With a time zone.
            replace: Also invites a registered site again; the caller withdraws its key and
                certificates.

        Returns:
            The site as it was before, and the token, which is kept nowhere else.

        Raises:
            UsageError: If the site has registered, or was removed.
        """
        with self._locked():
            known = self.find(name)
            allowed = known is None or known.state == "invited" or replace
            if known is not None and (known.state == "removed" or not allowed):
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
        """Checks the token of a kit; changes nothing.

        Args:
            name: Name of the site in the kit.
            token: Token of the kit.
            key: Public key of the site's SuperNode, OpenSSH format.
            now: With a time zone.

        Returns:
            The site; already active if the same kit is used again with the same key, since an
            answer may have been lost.

        Raises:
            Refused: If token, time or key is invalid.
        """
        site = self.find_or_nobody(name)
        # One message for a wrong name and a wrong token: neither can be guessed from it.
        if not hmac.compare_digest(site.token, _digest(token)):
            raise Refused("the kit is not known here", remedy="Ask for a new one.")
        check_key(key)
        if site.state == "active" and not is_same_key(site.key, key):
            raise Refused("the kit has been used already", remedy="Ask for a new one.")
        if now >= datetime.fromisoformat(site.expires):
            raise Refused(
                "the kit has expired", got=f"ended {site.expires}", remedy="Ask for a new one."
            )
        return site

    def enrol(
        self,
        name: str,
        token: str,
        key: str,
        certificate: str,
        serial: int,
        *,
        now: datetime,
        protocol: int = OLDEST,
    ) -> Enrolment:
        """Registers a site with the token of its kit, once.

        Args:
            name, token, key, now: As in `admit`.
            certificate: Its new certificate, PEM.
            serial: Serial number of the certificate.
            protocol: Highest version of the wire protocol that it speaks.

        Raises:
            Refused: If token, time or key is invalid, or the kit has been used.
        """
        with self._locked():
            site = self.admit(name, token, key, now=now)
            if site.state == "active":
                raise Refused("the kit has been used already", remedy="Ask for a new one.")
            self._require_new(key := check_key(key))
            site = dataclasses.replace(
                site,
                state="active",
                key=key,
                serials=f"{serial:x}",
                certificate=certificate,
                protocol=protocol,
            )
            self._write(site)
            return site

    def renew(
        self, name: str, key: str, certificate: str, serial: int, *, protocol: int = OLDEST
    ) -> tuple[Enrolment, Enrolment]:
        """Gives an active site another key and certificate; notes the protocol that it speaks.

        Returns:
            The site before and after.
        """
        with self._locked():
            site = self.active(name)
            key = check_key(key)
            if not is_same_key(key, site.key):
                self._require_new(key)
            after = dataclasses.replace(
                site,
                key=key,
                serials=f"{site.serials} {serial:x}".strip(),
                certificate=certificate,
                previous=site.key,
                protocol=protocol,
            )
            self._write(after)
            return site, after

    def set_protocol(self, name: str, protocol: int) -> None:
        """Notes the highest version of the wire protocol that an active site has named."""
        with self._locked():
            site = self.find(name)
            if site is not None and site.state == "active":
                self._write(dataclasses.replace(site, protocol=protocol))

    def remove(self, name: str) -> Enrolment:
        """Removes a site for good; returns its registration before.

        Raises:
            UsageError: If there is no such site.
        """
        with self._locked():
            site = self.find(name)
            if site is None:
                raise UsageError("unknown site", where=name)
            if site.state != "removed":
                self._write(dataclasses.replace(site, state="removed", token=""))
            return site

    def active(self, name: str) -> Enrolment:
        """The registration of an active site; raises Refused for any other."""
        site = self.find(name)
        if site is None or site.state != "active":
            raise Refused("this site is not registered", where=name)
        return site

    def _require_new(self, key: str) -> None:
        if any(is_same_key(other.key, key) for other in self.all()):
            raise Refused("the key belongs to another site", remedy="Make a new one.")

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
    """Returns a public key in its one form: OpenSSH format, on the curve P-384, no comment.

    Raises:
        Refused: If it is none that Flower accepts.
    """
    canonical = canonical_key(key)
    if canonical is None:
        raise Refused("not a public key", expected="OpenSSH format, on the curve P-384")
    return canonical


def utc_now() -> datetime:
    """The present time in UTC."""
    return datetime.now(UTC)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
