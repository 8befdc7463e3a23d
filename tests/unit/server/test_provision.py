from __future__ import annotations

import json
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
    load_ssh_private_key,
    load_ssh_public_key,
)
from cryptography.x509 import DNSName, load_pem_x509_certificate
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from f2l_fed.errors import ConfigError
from server.identity import ROLES, Credentials, Identity
from server.provision import create_authority, issue, site_kit

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_authority(tmp_path / "certificates", now=START)
    return tmp_path / "certificates"


def certificate_in(folder: Path, name: str = "tls.crt") -> x509.Certificate:
    return load_pem_x509_certificate((folder / name).read_bytes())


def policy(folder: Path, *, days: int = 1) -> PolicyBuilder:
    """Strict verification against the authority, some days after the start."""
    builder = PolicyBuilder().store(Store([certificate_in(folder, "ca.crt")]))
    return builder.time((START + timedelta(days=days)).replace(tzinfo=None))


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("role", ROLES)
def test_a_certificate_says_name_and_role(folder: Path, role: str) -> None:
    issued = issue(folder, "line-7", role, now=START)
    assert Identity.of(certificate_in(issued)) == Identity(name="line-7", role=role)


@pytest.mark.parametrize("host", ["hub", "localhost", "hub.example.org"])
def test_a_server_is_verified_under_each_of_its_names(folder: Path, host: str) -> None:
    issued = issue(folder, "hub", "server", hosts=["hub.example.org", "10.0.0.7"], now=START)
    verifier = policy(folder).build_server_verifier(DNSName(host))
    assert len(verifier.verify(certificate_in(issued), [])) == 2
    alternatives = certificate_in(issued).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    addresses = [str(a) for a in alternatives.value.get_values_for_type(x509.IPAddress)]
    assert addresses == ["127.0.0.1", "10.0.0.7"]


def test_a_client_is_verified_as_a_client_and_never_as_a_server(folder: Path) -> None:
    certificate = certificate_in(issue(folder, "hub", "admin", now=START))
    assert policy(folder).build_client_verifier().verify(certificate, [])
    with pytest.raises(VerificationError):
        policy(folder).build_server_verifier(DNSName("hub")).verify(certificate, [])


def test_a_certificate_ends_with_its_days(folder: Path) -> None:
    certificate = certificate_in(issue(folder, "viewer-1", "viewer", days=30, now=START))
    assert policy(folder, days=29).build_client_verifier().verify(certificate, [])
    with pytest.raises(VerificationError):
        policy(folder, days=31).build_client_verifier().verify(certificate, [])


def test_nothing_outlives_the_authority(tmp_path: Path) -> None:
    create_authority(tmp_path / "short", days=10, now=START)
    issued = issue(tmp_path / "short", "viewer-1", "viewer", days=365, now=START)
    assert certificate_in(issued).not_valid_after_utc == START + timedelta(days=10)
    with pytest.raises(ConfigError, match="authority has expired: got ended 2026-01-11"):
        issue(tmp_path / "short", "viewer-2", "viewer", now=START + timedelta(days=11))


def test_an_identity_folder_is_complete(folder: Path) -> None:
    credentials = Credentials.read(issue(folder, "viewer-1", "viewer", now=START))
    key = load_pem_private_key(credentials.key, password=None)
    certificate = load_pem_x509_certificate(credentials.certificate)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp384r1"
    assert key.public_key() == certificate.public_key()
    assert credentials.authority == (folder / "ca.crt").read_bytes()
    assert "PRIVATE" not in repr(credentials)


def test_only_the_owner_can_read_what_is_written(folder: Path) -> None:
    issue(folder, "viewer-1", "viewer", now=START)
    site_kit(folder, "line-7", server="hub:9092", now=START)
    assert {path.stat().st_mode & 0o777 for path in files_below(folder)} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (folder, *folder.glob("*/"))} == {0o700}


def test_nothing_is_ever_overwritten(folder: Path) -> None:
    issue(folder, "viewer-1", "viewer", now=START)
    before = {path: path.read_bytes() for path in files_below(folder)}
    with pytest.raises(ConfigError, match="never overwritten"):
        create_authority(folder)
    with pytest.raises(ConfigError, match="never overwritten"):
        issue(folder, "viewer-1", "admin", now=START)
    with pytest.raises(ConfigError, match="never overwritten"):
        site_kit(folder, "viewer-1", server="hub:9092", now=START)
    assert {path: path.read_bytes() for path in files_below(folder)} == before
    assert not list(folder.parent.rglob(".*")), "drafts are cleared away"


def test_a_site_kit_has_all_that_a_site_needs(folder: Path, tmp_path: Path) -> None:
    kit = site_kit(folder, "line-7", server="hub.example.org:9092", now=START)
    with tarfile.open(kit) as archive:
        assert {member.mode for member in archive} == {0o600}
        archive.extractall(tmp_path / "site", filter="data")
    site = tmp_path / "site"
    assert json.loads((site / "kit.json").read_text()) == {
        "format": 1,
        "site": "line-7",
        "server": "hub.example.org:9092",
    }
    assert Credentials.read(site).authority == (folder / "ca.crt").read_bytes()
    assert Identity.of(certificate_in(site)) == Identity(name="line-7", role="site")
    node = load_ssh_private_key((site / "flower.key").read_bytes(), password=None)
    assert isinstance(node, ec.EllipticCurvePrivateKey)
    assert node.public_key() == load_ssh_public_key((site / "flower.pub").read_bytes())


@pytest.mark.filterwarnings("ignore:.click:DeprecationWarning")  # from the import of flwr's CLI
def test_flower_accepts_the_public_key_for_registration(folder: Path) -> None:
    from flwr.cli.supernode.register import try_load_public_key

    kit = site_kit(folder, "line-7", server="hub:9092", now=START)
    assert try_load_public_key(kit.with_name("flower.pub")).startswith(b"-----BEGIN PUBLIC KEY")


def test_a_delivered_kit_leaves_nothing_private_with_the_server(folder: Path) -> None:
    kit = site_kit(folder, "line-7", server="hub:9092", now=START)
    kit.unlink()
    assert all(b"PRIVATE KEY" not in path.read_bytes() for path in kit.parent.iterdir())


@pytest.mark.parametrize(
    "name", ["", "-a", "A", "a_b", "a.b", "../a", "a/b", "ä", "a\n", "a" * 64, "٣"]
)
def test_a_name_that_is_no_plain_label_is_refused(folder: Path, name: str) -> None:
    before = files_below(folder.parent)
    with pytest.raises(ConfigError, match="the name can't be used"):
        issue(folder, name, "viewer", now=START)
    with pytest.raises(ConfigError, match="the name can't be used"):
        site_kit(folder, name, server="hub:9092", now=START)
    assert files_below(folder.parent) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"role": "root"}, "no such role: expected server, admin, viewer, site, got 'root'"),
        ({"role": "admin", "days": 0}, "expected 1 to 3650 days, got 0"),
        ({"role": "admin", "hosts": ["hub"]}, "only a server has host names"),
        ({"role": "server", "hosts": ["*.example.org"]}, "no host name"),
    ],
)
def test_what_can_not_stand_is_refused(folder: Path, arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        issue(folder, "viewer-1", now=START, **arguments)


@pytest.mark.parametrize("server", ["hub", "hub:0", "hub:65536", "hub:1\n", "https://hub:1", ":1"])
def test_a_kit_needs_a_server_address(folder: Path, server: str) -> None:
    with pytest.raises(ConfigError, match="expected host:port"):
        site_kit(folder, "line-7", server=server, now=START)


def test_without_a_sound_authority_nothing_is_issued(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no usable certificate authority"):
        issue(tmp_path / "elsewhere", "viewer-1", "viewer")
    create_authority(tmp_path / "other")
    (folder / "ca.key").write_bytes((tmp_path / "other" / "ca.key").read_bytes())
    with pytest.raises(ConfigError, match="the key is not the certificate's"):
        issue(folder, "viewer-1", "viewer")


def test_a_subject_with_two_roles_is_nobody() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    unit = x509.NameOID.ORGANIZATIONAL_UNIT_NAME
    subject = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COMMON_NAME, "viewer-1"),
            x509.NameAttribute(unit, "viewer"),
            x509.NameAttribute(unit, "admin"),
        ]
    )
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), 1)
        .not_valid_before(START)
        .not_valid_after(START + timedelta(days=1))
        .sign(key, hashes.SHA384())
    )
    with pytest.raises(ConfigError, match="one name and one role"):
        Identity.of(certificate)
