"""Warnings weeks before certificates of server and administrators end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from prometheus_client import generate_latest

from server.dashboard.metrics import federation_registry
from server.pki.certificate_store import create_authority, issue
from server.pki.expiry import certificate_ends, expiry_warnings

NOW = datetime.now(UTC)


def test_each_certificate_that_ends_within_a_month_is_told_with_the_remedy(tmp_path):
    folder = tmp_path / "central" / "certificates"
    create_authority(folder, days=400, now=NOW - timedelta(days=40))
    issue(folder, "server", "server", days=60, now=NOW - timedelta(days=40))
    issue(folder, "anna", "admin", days=30, now=NOW - timedelta(days=40))
    issue(folder, "admin", "admin", days=365, now=NOW - timedelta(days=40))
    (folder / "broken").mkdir()
    (folder / "broken" / "tls.crt").write_text("nothing")
    assert set(certificate_ends(folder)) == {"authority", "server", "anna", "admin"}
    anna, server = expiry_warnings(folder, NOW)
    assert anna.startswith("the certificate of the identity anna has ended, on ")
    assert server.startswith("the certificate of the identity server ends in 20 days, on ")
    assert server.endswith(f"; renew it: f2l-server identity renew {folder.parent} server.")
    authority, *_ = expiry_warnings(folder, NOW + timedelta(days=355))
    assert "new kits" in authority
    metrics = generate_latest(federation_registry(folder.parent)).decode()
    assert 'f2l_certificate_days_left{name="server"} 19.9' in metrics


def test_new_certificates_are_not_warned_of(tmp_path):
    create_authority(tmp_path)
    issue(tmp_path, "server", "server")
    assert expiry_warnings(tmp_path, NOW) == ()
    assert expiry_warnings(tmp_path / "absent", NOW) == ()
