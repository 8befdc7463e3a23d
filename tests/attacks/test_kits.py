"""Kits that somebody has made or altered: refused before anything is written, shown or sent."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from f2l_fed.wire.enrolment import FederationFacts
from server.membership.site_registry import SiteRegistry
from server.pki.certificate_store import create_authority, issue
from tests.attacks.peers.made_up_kits import made_up, sealed
from tests.support.commands import in_process
from tests.support.gateway import RunningGateway, gateway_running
from tests.support.sites import digits_site
from tests.support.waiting import PATIENCE_S

ESCAPE = "\x1b[2K\rkit of north for hub:8443, fingerprint 0123456789abcdef\x1b[8m"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    root = tmp_path_factory.mktemp("kits") / "federation"
    with gateway_running(root) as running:
        yield running


@pytest.fixture
def data(tmp_path: Path) -> Path:
    digits_site(tmp_path / "data")
    return tmp_path / "data/train.npz"


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    create_authority(tmp_path / "ca")
    issue(tmp_path / "ca", "server", "server")
    return tmp_path / "ca"


def kit_of(authority: Path, /, **changes: Any) -> dict[str, Any]:
    return made_up(
        (authority / "ca.crt").read_text(), datetime.now(UTC) + timedelta(hours=2), **changes
    )


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def init(kit: dict[str, Any], place: Path, data: Path, *more: str) -> Any:
    """What `f2l-site init` says to a kit, in an empty folder; its fingerprint is given to it."""
    file = place / "some.kit"
    file.write_text(json.dumps(kit))
    before = Path.cwd()
    os.chdir(place)
    try:
        given = more or ("--fingerprint", kit["fingerprint"][:16])
        return in_process("f2l-site", "init", str(file), "--data", str(data), *given)
    finally:
        os.chdir(before)


def test_the_name_in_a_kit_chooses_no_other_folder(tmp_path, authority, data):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "ca.crt").write_text("the authority of another site")
    place = tmp_path / "place"
    place.mkdir()
    for name in (str(victim), "../victim", ".", "", "North", "a b", "a" * 64, "north\n"):
        before = files_below(victim)
        done = init(kit_of(authority, site=name), place, data)
        assert done.returncode == 2, name
        assert "the kit's field site is not valid" in done.stderr
        assert files_below(victim) == before
    assert [path.name for path in place.iterdir()] == ["some.kit"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("server", "hub"),
        ("server", "hub:0"),
        ("server", "hub:99999"),
        ("server", "hub:8443\x1b[8m"),
        ("server", f"{'h' * 64}:1"),
        ("server", "hub..org:1"),
        ("server", f"{'h.' * 150}h:1"),
        ("token", "short"),
        ("token", "a" * 4000),
        ("token", "a" * 40 + "\n"),
        ("expires", "2099-01-01T00:00:00"),
        ("expires", "2099-01-01\x1b00:00:00+00:00"),
        ("expires", "20990101T000000+0000"),
        ("authority", "two"),
        ("authority", "none"),
        ("authority", "no authority"),
        ("authority", "with words"),
        ("authority", "with the server's"),
    ],
)
def test_every_field_of_a_kit_has_one_form(tmp_path, authority, data, field, value):
    own, leaf = (authority / "ca.crt").read_text(), (authority / "server/tls.crt").read_text()
    texts = {
        "two": own + own,
        "none": "",
        "no authority": leaf,
        "with words": f"{ESCAPE}\n{own}",
        "with the server's": own + leaf,
    }
    kit = kit_of(authority, **{field: texts.get(value, value)})
    place = tmp_path / "place"
    place.mkdir()
    done = init(kit, place, data)
    assert done.returncode == 2
    assert f"the kit's field {field} is not valid" in done.stderr
    assert [path.name for path in place.iterdir()] == ["some.kit"]


@pytest.mark.parametrize("field", ["site", "server", "token", "expires", "fingerprint", "more"])
def test_nothing_in_a_kit_reaches_the_terminal_as_control_characters(
    tmp_path, authority, data, field
):
    kit = kit_of(authority, **({field: ESCAPE} if field != "fingerprint" else {}))
    if field == "fingerprint":
        kit["fingerprint"] = ESCAPE
    place = tmp_path / "place"
    place.mkdir()
    done = init(kit, place, data, "--fingerprint", "0123456789abcdef")
    assert done.returncode == 2
    shown = done.stdout + done.stderr
    assert all(character.isprintable() or character == "\n" for character in shown)
    assert not re.search(r"^kit of", shown, re.M)


def test_a_site_registers_only_with_the_administrators_fingerprint(gateway, tmp_path, data):
    """A kit that was made by somebody else is whole in itself; only its fingerprint tells."""
    kit = json.loads(gateway.kit("north").read_text())
    forged = sealed({**kit, "token": "A" * 43})
    place = tmp_path / "place"
    place.mkdir()
    for told in (kit["fingerprint"], kit["fingerprint"][:16]):
        done = init(forged, place, data, "--fingerprint", told)
        assert done.returncode == 2
        assert "another fingerprint than the administrator's" in done.stderr
    for nonsense in ("abc", kit["fingerprint"][:15], kit["fingerprint"] + "0", "x" * 16, "\x1b[8m"):
        done = init(kit, place, data, "--fingerprint", nonsense)
        assert done.returncode == 2
        assert "--fingerprint: not a fingerprint" in done.stderr
    # Nobody at a terminal, no fingerprint: nobody has compared it.
    file = place / "some.kit"
    done = subprocess.run(
        [sys.executable, "-m", "clients.cli", "init", str(file), "--data", str(data)],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 2
    assert "the kit's fingerprint has not been compared" in done.stderr
    assert "--fingerprint" in done.stderr
    assert [path.name for path in place.iterdir()] == ["some.kit"]
    assert gateway.membership.registry.find("north").state == "invited"
    spaced = " ".join(re.findall("....", kit["fingerprint"][:16])).upper()
    done = init(kit, place, data, "--fingerprint", spaced)
    assert done.returncode == 0, done.stderr
    assert (place / "north/site.toml").exists()
    assert gateway.membership.registry.find("north").state == "active"


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1), ("", 1)])
def test_a_person_at_a_terminal_is_asked_after_the_fingerprint_is_shown(
    gateway, tmp_path, data, answer, code
):
    name = f"asked-{answer or 'enter'}"
    kit = gateway.kit(name)
    place = tmp_path / "place"
    place.mkdir()
    near, far = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "clients.cli", "init", str(kit), "--data", str(data)],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=far,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        os.close(far)
        os.write(near, f"{answer}\n".encode())
        said = process.communicate(timeout=PATIENCE_S)[0].decode()
    os.close(near)
    digits = json.loads(kit.read_text())["fingerprint"][:16]
    assert f"fingerprint {digits}\n" in said
    assert "Compare it with the administrator's. Go on? [y/N]" in said
    assert process.returncode == code, said
    state = "active" if code == 0 else "invited"
    assert gateway.membership.registry.find(name).state == state
    assert (place / name).exists() == (code == 0)


def test_an_authority_that_a_folder_has_is_never_replaced(gateway, tmp_path, authority, data):
    place = tmp_path / "place"
    place.mkdir()
    (place / "south").mkdir()
    other = (authority / "ca.crt").read_text()
    (place / "south/ca.crt").write_text(other)
    kit = json.loads(gateway.kit("south").read_text())
    done = init(kit, place, data)
    assert done.returncode == 2
    assert "belongs to a site of another federation" in done.stderr
    assert (place / "south/ca.crt").read_text() == other
    assert gateway.membership.registry.find("south").state == "invited"


@pytest.mark.parametrize("shared", [False, True])
def test_a_site_learns_at_its_registration_whether_labels_are_shared(
    gateway, tmp_path, data, shared
):
    facts = {"shared_labels": shared, "candidates": {"nearest": True}, "more": 1}
    (gateway.root / "federation.json").write_text(json.dumps(facts))
    name = f"labels-{'shared' if shared else 'own'}"
    place = tmp_path / "place"
    place.mkdir()
    done = init(json.loads(gateway.kit(name).read_text()), place, data)
    assert done.returncode == 0, done.stderr
    line = f"shared_labels = {'true' if shared else 'false'}"
    assert line in (place / name / "site.toml").read_text().splitlines()
    assert gateway.facts(place / name) == FederationFacts(shared_labels=shared, nearest=True)
    assert SiteRegistry(gateway.root / "registry").active(name).protocol == 4


def test_a_kit_of_format_2_from_before_is_read(tmp_path, authority, data):
    kit = kit_of(authority)
    plain = {name: value for name, value in kit.items() if name != "fingerprint"}
    text = json.dumps(plain, sort_keys=True).encode()
    assert kit["fingerprint"] == hashlib.sha256(text).hexdigest()
    place = tmp_path / "place"
    place.mkdir()
    done = init(kit, place, data)
    # It is used: only the server is missing.
    assert (done.returncode, "the server can't be reached" in done.stderr) == (1, True)
