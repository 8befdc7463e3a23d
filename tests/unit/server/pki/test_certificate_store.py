from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import DNSName, load_pem_x509_certificate
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from f2l_fed.errors import ConfigError, WireError
from server.pki.certificate_store import certify_site, create_authority, issue, replace_identity
from server.pki.identity import ROLES, Credentials, Identity
from server.pki.revocation import Revocations, revoke

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


def test_no_certificate_outlives_the_authority(tmp_path: Path) -> None:
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
    revoke(folder, [7], now=START)
    assert {path.stat().st_mode & 0o777 for path in files_below(folder)} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (folder, *folder.glob("*/"))} == {0o700}


def test_no_folder_is_overwritten(folder: Path) -> None:
    issue(folder, "viewer-1", "viewer", now=START)
    before = {path: path.read_bytes() for path in files_below(folder)}
    with pytest.raises(ConfigError, match="never overwritten"):
        create_authority(folder)
    with pytest.raises(ConfigError, match="never overwritten"):
        issue(folder, "viewer-1", "admin", now=START)
    assert {path: path.read_bytes() for path in files_below(folder)} == before
    assert not list(folder.parent.rglob(".*")), "drafts are cleared away"


def request_of(key: ec.EllipticCurvePrivateKey, name: str = "anyone") -> bytes:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return request.sign(key, hashes.SHA384()).public_bytes(Encoding.PEM)


def test_a_site_is_certified_under_its_own_name_and_not_the_requested_one(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    pem = certify_site(folder, "line-7", request_of(key, "admin"), days=30, now=START)
    certificate = load_pem_x509_certificate(pem)
    assert Identity.of(certificate) == Identity(name="line-7", role="site")
    assert certificate.public_key() == key.public_key()
    assert policy(folder).build_client_verifier().verify(certificate, [])


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP521R1()])
def test_a_key_on_another_curve_is_not_certified(folder: Path, curve: ec.EllipticCurve) -> None:
    with pytest.raises(WireError, match="expected a key on the curve P-384"):
        certify_site(folder, "line-7", request_of(ec.generate_private_key(curve)), days=30)


@pytest.mark.parametrize("change", [b"", b"nonsense", b"-----BEGIN CERTIFICATE REQUEST-----"])
def test_a_malformed_request_is_not_certified(folder: Path, change: bytes) -> None:
    with pytest.raises(WireError, match="not a certificate request"):
        certify_site(folder, "line-7", change, days=30)


def test_a_request_that_its_key_has_not_signed_is_not_certified(folder: Path) -> None:
    signed = request_of(ec.generate_private_key(ec.SECP384R1()))
    der = bytearray(x509.load_pem_x509_csr(signed).public_bytes(Encoding.DER))
    der[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM)
    with pytest.raises(WireError, match="a signature by it"):
        certify_site(folder, "line-7", forged, days=30)


def test_a_renewed_identity_has_another_key_and_the_same_name_and_role(folder: Path) -> None:
    issue(folder, "viewer-1", "viewer")
    before = Credentials.read(folder / "viewer-1")
    after = Credentials.read(replace_identity(folder, "viewer-1", days=30))
    assert after.key != before.key
    assert after.serial != before.serial
    assert after.role == before.role == "viewer"
    key = load_pem_private_key(after.key, password=None)
    assert key.public_key() == load_pem_x509_certificate(after.certificate).public_key()


def test_revoked_certificates_are_listed_and_stay_so(folder: Path) -> None:
    revoked = Revocations(folder)
    assert 7 not in revoked
    revoke(folder, [7], now=START)
    assert 7 in revoked
    revoke(folder, [8], now=START)
    assert 7 in revoked
    assert 8 in revoked
    assert 9 not in revoked


def test_threads_that_revoke_at_the_same_time_lose_nothing(folder: Path) -> None:
    serials = range(1, 25)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda serial: revoke(folder, [serial], now=START), serials))
    revoked = Revocations(folder)
    assert [serial for serial in serials if serial not in revoked] == []


def test_a_list_that_the_authority_has_not_signed_lets_nobody_in(
    folder: Path, tmp_path: Path
) -> None:
    create_authority(tmp_path / "other", now=START)
    revoke(tmp_path / "other", [7], now=START)
    (folder / "ca.crl").write_bytes((tmp_path / "other" / "ca.crl").read_bytes())
    with pytest.raises(ConfigError, match="the list of revoked certificates is damaged"):
        _ = 9 in Revocations(folder)
    with pytest.raises(ConfigError, match="the list of revoked certificates is damaged"):
        revoke(folder, [9])


@pytest.mark.parametrize(
    "name", ["", "-a", "A", "a_b", "a.b", "../a", "a/b", "ä", "a\n", "a" * 64, "٣"]
)
def test_an_invalid_name_is_refused(folder: Path, name: str) -> None:
    before = files_below(folder.parent)
    with pytest.raises(ConfigError, match="invalid name"):
        issue(folder, name, "viewer", now=START)
    request = request_of(ec.generate_private_key(ec.SECP384R1()))
    with pytest.raises(ConfigError, match="invalid name"):
        certify_site(folder, name, request, days=1, now=START)
    assert files_below(folder.parent) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"role": "root"}, "unknown role: expected server, admin, viewer, site, got 'root'"),
        ({"role": "admin", "days": 0}, "expected 1 to 3650 days, got 0"),
        ({"role": "admin", "hosts": ["hub"]}, "only a server has host names"),
        ({"role": "server", "hosts": ["*.example.org"]}, "invalid host name"),
    ],
)
def test_invalid_arguments_are_refused(folder: Path, arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        issue(folder, "viewer-1", now=START, **arguments)


def test_without_a_sound_authority_nothing_is_issued(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no usable certificate authority"):
        issue(tmp_path / "elsewhere", "viewer-1", "viewer")
    create_authority(tmp_path / "other")
    (folder / "ca.key").write_bytes((tmp_path / "other" / "ca.key").read_bytes())
    with pytest.raises(ConfigError, match="the key is not the certificate's"):
        issue(folder, "viewer-1", "viewer")


def test_a_subject_with_two_roles_is_refused() -> None:
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
