"""The members of a federation: invitations, registrations, renewals, removals.

Registry, certificate authority and SuperLink are kept consistent here: the registry is the source
of truth, revocation follows at once, and the SuperLink is synchronised whenever it can be reached.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from f2l_fed import events
from f2l_fed.errors import F2LError, UsageError
from f2l_fed.events import EventLog
from f2l_fed.wire.enrolment import (
    AUTHORITY,
    CLOCK_TOLERANCE_S,
    TOLD,
    EnrolmentForm,
    FederationFacts,
    RenewalForm,
)
from f2l_fed.wire.kit import Kit
from server.federation.agreed_scales import SCALES_FILE, require_agreed, take_figures
from server.federation.folder import FEDERATION_FILE
from server.federation.server_settings import ServerSettings
from server.membership.site_registry import Enrolment, Refused, SiteRegistry, utc_now
from server.membership.site_standing import told_standing
from server.pki.certificate_authority import certificate_pem
from server.pki.certificate_store import certify_site
from server.pki.identity import check_name
from server.pki.revocation import revoke
from server.pki.site_keys import is_same_key
from server.superlink.client import SuperLink

_LOG = logging.getLogger("f2l.membership")


class Membership:
    """The members of a federation.

    Args:
        root: The federation's folder.
        settings: Address and validities.
        superlink: The SuperLink, or None while there is none.
        clock: Present time, with a time zone.
    """

    def __init__(
        self,
        root: Path,
        settings: ServerSettings,
        superlink: Callable[[], SuperLink | None] = lambda: None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._root, self._certificates = root, root / "certificates"
        self._settings, self._superlink, self._clock = settings, superlink, clock
        self._events = EventLog(path=root / "events.jsonl", clock=time.time)
        self.registry = SiteRegistry(root / "registry")
        self._agreed: tuple[int, dict[str, Any]] = (0, {})
        self.problems: tuple[str, ...] = ()
        """Sites that the SuperLink has not registered, and what to do: one sentence each."""
        unused = ec.generate_private_key(ec.SECP384R1()).public_key()
        self._nobodys_key = unused.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()

    def facts(self) -> FederationFacts:
        """The facts that sites are told, from the federation's file; the defaults without one."""
        try:
            values = json.loads((self._root / FEDERATION_FILE).read_text(encoding="utf-8"))
            candidates = values.get("candidates", {})
            return FederationFacts(
                shared_labels=values.get("shared_labels") is True,
                nearest=candidates.get("nearest") is True,
            )
        except (OSError, ValueError, AttributeError):
            return FederationFacts()

    def told_facts(self, site: str = "") -> dict[str, Any]:
        """The facts with the agreement about the task, as answers to sites carry them.

        Args:
            site: The site that asks, which is also told how its last task ended; "" for any.
        """
        told = {**self.facts().to_json(), **self._agreement()}
        return told | told_standing(self._root, site) if site else told

    def _agreement(self) -> dict[str, Any]:
        """The agreement as an answer carries it; nothing where there is no federation."""
        # Loaded where it is needed, with PyTorch: commands that only list sites do without.
        from server.federation.agreement import agreement_of
        from server.federation.folder import Federation

        path = self._root / FEDERATION_FILE
        try:
            # Scales come to be agreed on beside the settings.
            version = path.stat().st_mtime_ns + (self._root / SCALES_FILE).exists()
            if version != self._agreed[0]:
                # A network is built for it: once for each edit of the settings.
                self._agreed = version, agreement_of(Federation.open(self._root)).to_json()
        except (F2LError, OSError) as error:
            _LOG.warning("the agreement about the task can't be told: %s", error)
            return {}
        return self._agreed[1]

    def take_scales(self, site: str, values: Any) -> dict[str, Any]:
        """Takes the figures of a site's columns; returns the agreement, and how many have told.

        Args:
            site: Name of the site.
            values: What it has posted.

        Raises:
            F2LError: If they are no figures, or not asked for.
        """
        from server.federation.folder import Federation

        scaling = Federation.open(self._root).config.scaling
        told = take_figures(self._root, scaling, site, values, self._active())
        return {**self.told_facts(site), TOLD: told}

    def require_scales(self) -> None:
        """Raises UsageError if sites are to agree on scales before a round and have not yet."""
        from server.federation.folder import Federation

        require_agreed(self._root, Federation.open(self._root).config.scaling, self._active())

    def _active(self) -> frozenset[str]:
        return frozenset(site.name for site in self.registry.all() if site.state == "active")

    def backbone(self) -> str:
        """The digest of the backbone that the federation adapts; "" where it adapts none."""
        try:
            values = json.loads((self._root / FEDERATION_FILE).read_text(encoding="utf-8"))
            return str(values["target"].get("backbone", ""))
        except (OSError, ValueError, LookupError, AttributeError, TypeError):
            return ""

    def invite(
        self, name: str, by: str, *, hours: int = 0, replace: bool = False, backbone: str = ""
    ) -> bytes:
        """Makes a kit for a site; its earlier key and certificates become invalid.

        Args:
            name: Of the site.
            by: Name of the identity that invites it.
            hours: Validity of the kit; 0 takes the setting.
            replace: Also for a site that has registered.
            backbone: Digest of the backbone whose file is to follow in the kit; "" for none.

        Returns:
            The kit, the one file that the site needs.

        Raises:
            UsageError: If the federation adapts another backbone, or none.
        """
        check_name(name)
        if backbone and backbone != (own := self.backbone()):
            raise UsageError(
                "the federation adapts another backbone" if own else "it adapts no backbone",
                where="[target] backbone",
                expected=own or "none",
                got=ascii(backbone[:64]),
                remedy="Give the file that f2l-admin target prepare has written for it."
                if own
                else "Make the kit without --backbone.",
            )
        hours = hours or self._settings.kit_hours
        # Only the certificate itself: whoever has edited the file may have added words.
        known = x509.load_pem_x509_certificate((self._certificates / AUTHORITY).read_bytes())
        authority = certificate_pem(known).decode()
        if replace:
            # First: the invitation removes these certificates from the registry.
            self._revoke(self.registry.find(name))
        before, token = self.registry.invite(name, hours=hours, now=self._clock(), replace=replace)
        if before is not None:
            self._withdraw(before)
        site = self.registry.find(name)
        kit = Kit.create(
            site=name,
            server=self._settings.address,
            authority=authority,
            token=token,
            expires=site.expires if site else "",
            backbone=backbone,
        )
        self._events.emit(events.SITE_INVITED, site=name, by=by)
        return kit.to_json()

    def enrol(self, form: EnrolmentForm) -> str:
        """Registers a site.

        Returns:
            The certificate, PEM; the same again if the same request is repeated.

        Raises:
            Refused: If kit or key is invalid.
        """
        now, request = self._clock(), form.request.encode("ascii")
        site = self.registry.admit(form.site, form.token, form.key, now=now)
        if site.state == "active":
            return _same(site, request)
        pem, serial = self._certify(form.site, request, now)
        self.registry.enrol(
            form.site, form.token, form.key, pem, serial, now=now, protocol=form.protocol
        )
        self._events.emit(events.SITE_ENROLLED, site=form.site)
        self.synchronise_superlink()
        return pem

    def renew(self, form: RenewalForm) -> str:
        """Gives a registered site a new certificate and, where the form has another, a new key.

        Returns:
            The certificate, PEM; the earlier ones are revoked.

        Raises:
            Refused: If the request is invalid.
        """
        now, name, request = self._clock(), form.site, form.request.encode("ascii")
        site = self.registry.find_or_nobody(name)
        # The same work and words for every name: without a site's key nobody learns of the site.
        by_key, by_previous = (
            form.is_signed_by(key or self._nobodys_key) for key in (site.key, site.previous)
        )
        repeated = by_previous and is_same_key(form.key, site.key)
        if not repeated and not by_key:
            raise Refused(
                "the renewal is not signed by the key of a registered site",
                remedy="Ask the administrator for a kit.",
            )
        if site.state != "active":
            raise Refused("this site is not registered", where=name)
        _require_near(form.time, now)
        if repeated and not is_same_key(site.previous, site.key):
            pem = _same(site, request)
            # The process that renewed it may have died before this step.
            self._revoke_earlier(site)
            return pem
        pem, serial = self._certify(name, request, now)
        # Revoked only now: a renewal that the registry refuses must not lock the site out.
        _, after = self.registry.renew(name, form.key, pem, serial, protocol=form.protocol)
        self._revoke_earlier(after)
        self._events.emit(events.SITE_RENEWED, site=name)
        self.synchronise_superlink()
        return pem

    def remove(self, name: str, by: str) -> Enrolment:
        """Removes a site: its certificates are revoked, its key is unregistered."""
        self._revoke(self.registry.find(name))
        site = self.registry.remove(name)
        self._withdraw(site)
        self._events.emit(events.SITE_REMOVED, site=name, by=by)
        return site

    def online(self) -> frozenset[str]:
        """Names of the sites that the SuperLink has heard from lately."""
        superlink = self._superlink()
        if superlink is None:
            return frozenset()
        try:
            return frozenset(node.name for node in superlink.nodes() if node.online)
        except F2LError:
            return frozenset()

    def synchronise_superlink(self) -> None:
        """Registers the keys of the active sites, and no others, at the SuperLink."""
        superlink = self._superlink()
        if superlink is None:
            return
        try:
            active = [site for site in self.registry.all() if site.state == "active"]
            # Of two with one key, which an earlier version let in, the first one has it.
            active.sort(key=lambda site: site.added)
            failed = superlink.register_only({site.name: site.key for site in active})
        except F2LError as error:
            # At its next start it is synchronised again.
            _LOG.warning("%s", error)
            return
        self.problems = tuple(
            f"site {name}: {why}. Give it a new kit: f2l-admin site add {name} --replace."
            for name, why in sorted(failed.items())
        )
        for problem in self.problems:
            _LOG.warning("%s", problem)

    def _certify(self, name: str, request: bytes, now: datetime) -> tuple[str, int]:
        pem = certify_site(
            self._certificates, name, request, days=self._settings.certificate_days, now=now
        )
        return pem.decode(), x509.load_pem_x509_certificate(pem).serial_number

    def _withdraw(self, site: Enrolment) -> None:
        self._revoke(site)
        self.synchronise_superlink()

    def _revoke(self, site: Enrolment | None) -> None:
        if site is not None and site.serials:
            revoke(self._certificates, site.serial_numbers, now=self._clock())

    def _revoke_earlier(self, site: Enrolment) -> None:
        """Revokes all certificates of a site but its latest."""
        revoke(self._certificates, site.serial_numbers[:-1], now=self._clock())


def _require_near(time: str, now: datetime) -> None:
    try:
        asked = datetime.fromisoformat(time)
        away = abs((now - asked.astimezone(UTC)).total_seconds())
    except (ValueError, OverflowError) as error:
        raise Refused("not a valid timestamp", expected="ISO 8601", got=ascii(time[:40])) from error
    if asked.tzinfo is None or away > CLOCK_TOLERANCE_S:
        raise Refused(
            "the clocks of site and server differ too much",
            expected=f"at most {CLOCK_TOLERANCE_S} s",
            got=f"{away:.0f} s",
            remedy="Set the site's clock.",
        )


def _same(site: Enrolment, request: bytes) -> str:
    """The site's certificate, if the request is for the same key again."""
    try:
        requested = x509.load_pem_x509_csr(request).public_key()
        certified = x509.load_pem_x509_certificate(site.certificate.encode()).public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Refused("not a certificate request", expected="PEM") from error
    if requested != certified:
        raise Refused("the kit has been used already", remedy="Ask for a new one.")
    return site.certificate
