from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from clients.onboarding.kit import BACKBONE, read_kit, unpack_backbone
from clients.onboarding.preflight import check
from clients.onboarding.site_template import create_site, register_site
from f2l_fed.errors import ConfigError
from f2l_fed.targets.config import BackboneConfig
from f2l_fed.wire.kit import Kit
from server.pki.certificate_authority import CertificateAuthority, certificate_pem
from tests.support.backbones import NETWORK, backbone_file
from tests.support.deployment import free_ports
from tests.support.sites import digits_site

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture(scope="module")
def plain() -> Kit:
    authority = CertificateAuthority.create(days=9, now=NOW).certificate
    return Kit.create(
        site="north",
        server=f"localhost:{free_ports(1)[0]}",
        authority=certificate_pem(authority).decode(),
        token="a" * 43,
        expires=(NOW + timedelta(hours=2)).isoformat(),
    )


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, str]:
    """A backbone's file and its digest."""
    path = tmp_path_factory.mktemp("backbone") / "file"
    file = backbone_file()
    file.write(path)
    return path.read_bytes(), file.part.digest


def written(folder: Path, plain: Kit, backbone: str, after: bytes) -> Path:
    fields = {name: getattr(plain, name) for name in ("site", "server", "authority", "token")}
    kit = Kit.create(**fields, expires=plain.expires, backbone=backbone)
    path = folder / "north.kit"
    path.write_bytes(kit.to_json() + after)
    return path


def test_a_kit_brings_the_backbone_it_names(tmp_path, plain, content):
    after, digest = content
    path = written(tmp_path, plain, digest, after)
    kit = read_kit(path, now=NOW)
    assert kit.backbone == digest
    for _ in range(2):
        assert unpack_backbone(path, kit, tmp_path) == BACKBONE
    assert (tmp_path / BACKBONE).read_bytes() == after
    assert (tmp_path / BACKBONE).stat().st_mode & 0o777 == 0o600
    assert {one.name for one in tmp_path.iterdir()} == {"north.kit", BACKBONE}


def test_a_kit_without_one_is_read_as_before(tmp_path, plain):
    for after in (b"", b"\n", b" \r\n\n"):
        path = written(tmp_path, plain, "", after)
        assert read_kit(path, now=NOW) == plain
        assert unpack_backbone(path, plain, tmp_path) == ""
    # Mail programs make other ends of lines.
    path.write_bytes(plain.to_json().replace(b"\n", b"\r\n"))
    assert read_kit(path, now=NOW) == plain


def test_a_kit_with_too_little_or_too_much_after_it_is_refused(tmp_path, plain, content):
    after, digest = content
    for backbone, more in ((digest, b""), (digest, b"\n"), ("", after)):
        path = written(tmp_path, plain, backbone, more)
        with pytest.raises(ConfigError, match="the kit is not whole"):
            read_kit(path, now=NOW)


def test_an_altered_backbone_is_refused_before_the_kit_is_used_up(tmp_path, plain, content):
    after, digest = content
    data = tmp_path / "train.npz"
    data.write_bytes(b"")
    where = tmp_path / "north"
    changed = bytearray(after)
    changed[-1] ^= 1
    for backbone, wrong in (("0" * 64, after), (digest, after[:-100]), (digest, bytes(changed))):
        path = written(tmp_path, plain, backbone, wrong)
        kit = read_kit(path, now=NOW)
        with pytest.raises(ConfigError, match="backbone was altered") as caught:
            register_site(kit, path, where, data)
        assert kit.backbone in str(caught.value)
        assert list(where.iterdir()) == []


def test_a_file_whose_network_nobody_has_named_is_told_by_check(tmp_path):
    data = digits_site(tmp_path / "data").with_name("train.npz")
    (tmp_path / "north").mkdir()
    file = tmp_path / "north" / BACKBONE
    backbone_file().write(file)
    config = BackboneConfig(file=BACKBONE)
    site = create_site(tmp_path / "north", "north", data, backbone=config)
    assert f'file = "{BACKBONE}"\nnetwork = ""\n' in site.read_text()
    (problem,) = check(site, connect=False).problems
    assert "no network is named for the backbone's file" in problem
    site.write_text(site.read_text().replace('network = ""', f'network = "{NETWORK}"'))
    assert check(site, connect=False).problems == ()
