"""Replaced certificates are revoked, at whatever point a process has died."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import CertificateSigningRequestBuilder, Name

from f2l_fed.errors import ConfigError, UsageError
from f2l_fed.wire.enrolment import EnrolmentForm, RenewalForm
from server.federation.folder import FEDERATION_FILE
from server.federation.server_settings import ServerSettings
from server.membership.membership import Membership
from server.membership.site_registry import Refused
from server.pki.certificate_store import create_authority
from server.pki.revocation import REVOCATIONS, Revocations

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Site:
    """The key of a site, and its certificate request."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP384R1())
        public = self.key.public_key()
        self.public = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        builder = CertificateSigningRequestBuilder().subject_name(Name([]))
        self.request = builder.sign(self.key, hashes.SHA384()).public_bytes(Encoding.PEM).decode()


class Played:
    """A federation without a SuperLink, whose revocations can be made to fail."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.certificates = root / "certificates"
        create_authority(self.certificates, now=NOW)
        self.membership = Membership(root, ServerSettings(), clock=lambda: NOW)

    def enrol(self, name: str, site: Site, *, replace: bool = False) -> int:
        kit = json.loads(self.membership.invite(name, "admin", replace=replace))
        self.membership.enrol(
            EnrolmentForm(site=name, token=kit["token"], key=site.public, request=site.request)
        )
        return self.serials(name)[-1]

    def renew(self, name: str, before: Site, after: Site, protocol: int = 3) -> str:
        return self.membership.renew(
            RenewalForm.signed(
                site=name,
                key=after.public,
                request=after.request,
                time=NOW,
                by=before.key,
                protocol=protocol,
            )
        )

    def serials(self, name: str) -> list[int]:
        return self.membership.registry.active(name).serial_numbers

    def revoked(self, serial: int) -> bool:
        return serial in Revocations(self.certificates)

    def dying(self, act: Callable[[], object]) -> None:
        """Does something that ends where certificates are revoked, as a crash there would."""
        path = self.certificates / REVOCATIONS
        kept = path.read_bytes() if path.exists() else None
        path.write_text("no list")
        with pytest.raises(ConfigError, match="the list of revoked certificates is damaged"):
            act()
        if kept is None:
            path.unlink()
        else:
            path.write_bytes(kept)


@pytest.fixture
def played(tmp_path: Path) -> Played:
    return Played(tmp_path)


def test_a_renewal_revokes_what_was_before(played: Played) -> None:
    first, second = Site(), Site()
    serial = played.enrol("north", first)
    assert not played.revoked(serial)
    played.renew("north", first, second)
    assert played.revoked(serial)
    assert [played.revoked(one) for one in played.serials("north")] == [True, False]


def test_a_renewal_names_the_protocol_that_the_site_speaks_from_now_on(played: Played) -> None:
    first, second = Site(), Site()
    played.enrol("north", first)
    assert played.membership.registry.active("north").protocol == 3
    played.renew("north", first, second, protocol=4)
    assert played.membership.registry.active("north").protocol == 4


def test_a_renewal_that_died_before_it_revoked_does_so_when_it_is_repeated(played: Played) -> None:
    first, second = Site(), Site()
    serial = played.enrol("north", first)
    played.dying(lambda: played.renew("north", first, second))
    assert not played.revoked(serial)
    pem = played.renew("north", first, second)
    assert pem == played.membership.registry.active("north").certificate
    assert [played.revoked(one) for one in played.serials("north")] == [True, False]


def test_a_renewal_that_is_refused_leaves_the_site_its_certificate(played: Played) -> None:
    first, other = Site(), Site()
    serial = played.enrol("north", first)
    played.enrol("south", other)
    with pytest.raises(Refused, match="belongs to another site"):
        played.renew("north", first, other)
    assert not played.revoked(serial)


def test_a_new_kit_for_a_registered_site_revokes_before_the_old_serials_are_forgotten(
    played: Played,
) -> None:
    first, second = Site(), Site()
    played.enrol("north", first)
    played.renew("north", first, second)
    serials = played.serials("north")
    played.dying(lambda: played.membership.invite("north", "admin", replace=True))
    assert played.serials("north") == serials
    latest = played.enrol("north", Site(), replace=True)
    assert all(played.revoked(serial) for serial in serials)
    assert not played.revoked(latest)


def test_a_removal_revokes_before_the_registry_says_that_the_site_is_out(played: Played) -> None:
    serial = played.enrol("north", Site())
    played.dying(lambda: played.membership.remove("north", "admin"))
    assert played.membership.registry.active("north")
    played.membership.remove("north", "admin")
    assert played.revoked(serial)


def test_a_kit_is_made_for_the_backbone_of_the_federation_and_no_other(played):
    ours, theirs = "ab" * 32, "cd" * 32
    with pytest.raises(UsageError, match="adapts no backbone: expected none") as caught:
        played.membership.invite("north", "admin", backbone=theirs)
    (played.root / FEDERATION_FILE).write_text(json.dumps({"target": {"backbone": ours}}))
    with pytest.raises(UsageError, match="adapts another backbone") as caught:
        played.membership.invite("north", "admin", backbone=theirs)
    assert (caught.value.expected, caught.value.got) == (ours, repr(theirs))
    assert played.membership.registry.find("north") is None
    kits = [json.loads(played.membership.invite("north", "admin", backbone=ours))]
    kits.append(json.loads(played.membership.invite("north", "admin")))
    assert [kit.get("backbone") for kit in kits] == [ours, None]
