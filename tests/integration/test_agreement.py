"""A site compares itself with the federation's task at the gateway, without a round."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from clients.onboarding.kit import read_kit
from clients.onboarding.preflight import check
from clients.onboarding.server_connection import federation_facts, last_task
from clients.onboarding.site_template import register_site
from clients.site.site_folder import SiteFolder
from clients.training.agreed_task import differences
from server.federation.settings import create
from server.generator.network_service import NetworkService
from server.membership.network_api import Networks
from server.rounds.journal import Journal, JournalEntry
from tests.support.gateway import RunningGateway, gateway_running
from tests.support.sites import digits_site

NAMES = ("ok", "scratch", "dent")
TASK = ["target.input_shape=[1,8,8]", "target.classes=3", "target.name=mlp"]
SHARED = [*TASK, "shared_labels=true", 'labels=["ok","scratch","dent"]']


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """The gateway of a federation with shared labels."""
    root = tmp_path_factory.mktemp("agreement") / "central"
    federation, _ = create(root, {}, SHARED, {}, "--set")
    networks = Networks(service=NetworkService(federation.root), largest_bytes=2**20)
    with gateway_running(root, networks=networks) as running:
        yield running


def data_of(folder: Path, names: tuple[str, ...] = NAMES) -> Path:
    """Examples with these labels, a file."""
    digits_site(folder)
    with np.load(folder / "train.npz") as data:
        x, y = data["x"], data["y"]
    np.savez(folder / "train.npz", x=x, y=np.array(names)[y])
    return folder / "train.npz"


def joined(gateway: RunningGateway, folder: Path, name: str, data: Path) -> Path:
    """The site.toml of a site that has registered."""
    file = gateway.kit(name)
    kit = read_kit(file, now=datetime.now(UTC))
    path, agreement = register_site(kit, file, folder / name, data)
    assert agreement is not None
    assert agreement.about() == (
        "images of 8x8 pixels in 1 channel, 3 classes, the same at every site: ok, scratch, dent, "
        "network mlp"
    )
    return path


def test_a_new_site_gets_the_labels_and_its_check_finds_nothing(gateway, tmp_path):
    path = joined(gateway, tmp_path, "north", data_of(tmp_path / "data"))
    assert 'labels = ["ok", "scratch", "dent"]' in path.read_text()
    report = check(path, compare=differences)
    assert report.problems == ()
    assert report.federation.startswith("images of 8x8 pixels")
    assert not (path.parent / "state").exists()


def test_every_difference_is_found_without_a_round(gateway, tmp_path):
    path = joined(gateway, tmp_path, "south", data_of(tmp_path / "data"))
    text = path.read_text().replace('["ok", "scratch", "dent"]', '["ok", "dent", "scratch"]')
    path.write_text(text.replace("maximum_steps = ", "maximum_steps = 1 # "))
    problems = check(path, compare=differences).problems
    assert len(problems) == 2
    assert "labels are not those of the federation" in problems[0]
    assert "(too-many-steps). Change [policy] maximum_steps" in problems[1]


def test_what_the_federation_is_for_is_told_with_examples_that_do_not_fit(gateway, tmp_path):
    path = joined(gateway, tmp_path, "east", data_of(tmp_path / "data"))
    text = path.read_text().replace('["ok", "scratch", "dent"]', '["ok", "crack", "dent"]')
    path.write_text(text)
    report = check(path, compare=differences)
    assert report.federation.startswith("images of 8x8 pixels")
    assert "labels are not among those of the site" in report.problems[0]
    assert 'in its order, are ["ok", "scratch", "dent"]' in report.problems[1]


def test_a_site_is_told_how_its_last_task_ended_and_no_other_s(gateway, tmp_path):
    path = joined(gateway, tmp_path, "west", data_of(tmp_path / "data"))
    site = SiteFolder.read(path)
    assert last_task(federation_facts(site, now=datetime.now(UTC))) == ""
    (gateway.root / "rounds" / "00001.json").write_text("{}")
    journal = Journal.of(gateway.root / "rounds", 1)
    journal.append(JournalEntry(site="east", code="accepted"))
    journal.append(
        JournalEntry(site="west", code="quarantined", reason="norm 7", finding="probe-length")
    )
    told = federation_facts(site, now=datetime.now(UTC))
    assert told["last_task"] == {"round": 1, "code": "quarantined", "finding": "probe-length"}
    sentence = last_task(told)
    assert sentence.startswith("round 1: the update waits in quarantine")
    assert "a probe much longer or shorter than the others'. " in sentence
