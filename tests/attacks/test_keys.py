"""Two sites with one key: the second is refused, and none of them keeps a third one out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
)
from cryptography.x509 import CertificateSigningRequestBuilder, Name

from tests.support.central import Central, exchange, prepare, running, status_of
from tests.support.visits import activate, invited, registered, shaking

pytestmark = [pytest.mark.deployment, pytest.mark.slow]


@pytest.fixture(scope="module")
def central(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Central]:
    root = tmp_path_factory.mktemp("central") / "federation"
    with running(root, *prepare(root)) as service:
        yield service


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kits")


def other_letters(folder: Path) -> str:
    """A site's public key with a stray character, which readers of the format skip."""
    private = load_ssh_private_key((folder / "flower.key").read_bytes(), None)
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return f"{public[:60]}!{public[60:]}"


def enrol(central: Central, kits: Path, name: str, key: str) -> bytes:
    """The server's answer to a kit that is used with a key of one's choice."""
    token = json.loads(invited(central, kits, name).read_text())["token"]
    builder = CertificateSigningRequestBuilder().subject_name(Name([]))
    request = builder.sign(ec.generate_private_key(ec.SECP384R1()), hashes.SHA384())
    form = {"site": name, "token": token, "key": key}
    form["request"] = request.public_bytes(Encoding.PEM).decode()
    body = json.dumps(form).encode()
    head = b"POST /v1/site/enrol HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    head += b"content-length: %d\r\n\r\n" % len(body)
    return exchange(central.gateway, head + body, tls=shaking(central))


def test_the_key_of_another_site_in_other_letters_is_refused(central, kits):
    alder = registered(central, kits, "alder")
    answer = enrol(central, kits, "birch", other_letters(alder))
    assert status_of(answer) == 409
    assert b"the key belongs to another site" in answer
    cedar = registered(central, kits, "cedar")
    for site in (alder, cedar):
        assert activate(central, shaking(central, site), site) == 200


def test_a_key_of_another_curve_is_refused(central, kits):
    for curve in (ec.SECP256R1(), ec.SECP521R1()):
        key = ec.generate_private_key(curve).public_key()
        text = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        answer = enrol(central, kits, "curve", text)
        assert status_of(answer) == 409
        assert b"not a public key" in answer


def test_two_sites_with_one_key_in_an_old_registry_keep_nobody_out_and_are_told(central, kits):
    alder = registered(central, kits, "alder")
    registry = central.root / "registry"
    values = json.loads((registry / "alder.json").read_text())
    twin = {**values, "name": "beech", "key": other_letters(alder), "added": "2099-01-01T00:00:00"}
    damaged = {**values, "name": "chestnut", "key": "no key"}
    for site in (twin, damaged):
        (registry / f"{site['name']}.json").write_text(json.dumps(site))
    dogwood = registered(central, kits, "dogwood")
    for site in (alder, dogwood):
        assert activate(central, shaking(central, site), site) == 200
    said = central.admin("health")
    assert said.returncode == 0
    assert "site beech: its key is that of site alder. Give it a new kit" in said.stdout
    assert "site chestnut: its key is not a public key that Flower accepts" in said.stdout
    told = json.loads(central.admin("health", "--json").stdout)
    assert [line.split(":")[0] for line in told["problems"]] == ["site beech", "site chestnut"]
