"""A newcomer of a running federation: from its kit to a network, without any round."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from clients.onboarding.kit import read_kit
from clients.site.model_store import load_model, load_start
from server.federation import settings
from server.federation.folder import Federation
from tests.support.central import Central, command, prepare, running
from tests.support.inline import conductor
from tests.support.served import OF_ALL, SETTINGS, close, measured
from tests.support.small_federation import SETTINGS as SMALL
from tests.support.small_federation import small_federation
from tests.support.visits import invited

pytestmark = [pytest.mark.deployment, pytest.mark.slow]


def trained(root: Path, folder: Path, adapt: tuple[str, ...]) -> tuple[int, int]:
    """A federation laid out for deployment, after two rounds; the ports of gateway and control."""
    own = ("target.classes=5", *SMALL, *SETTINGS, *adapt)
    ports = prepare(root, *(word for one in own for word in ("--set", one)))
    small_federation(folder, settings=own)
    federation, _ = settings.refresh(root)
    files = sorted((folder / "sites").glob("*/site.toml"))
    states = conductor(federation, files).run(2, len(files))
    assert [state.step for state in states] == ["done", "done"]
    return ports


def joined(central: Central, folder: Path, name: str, data: Path) -> Path:
    """The ``site.toml`` of a site that has registered with its kit."""
    kit = invited(central, folder, name)
    fingerprint = read_kit(kit, now=datetime.now(UTC)).short_fingerprint
    done = command(
        "f2l-site", "init", str(kit), "--data", str(data), "--into", str(folder / name),
        "--fingerprint", fingerprint,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / name / "site.toml"


def test_a_newcomer_gets_its_network_without_a_round(tmp_path):
    root, folder = tmp_path / "central", tmp_path / "sites"
    ports = trained(root, folder, OF_ALL)
    data = next((folder / "sites").glob("*/train.npz"))
    with running(root, *ports) as central:
        site = joined(central, folder, "newcomer", data)
        assert load_start(site.parent / "state") is None
        federation = Federation.open(root)
        for release in ("00002", "00001"):
            done = command("f2l-site", "generate", str(site), "--json")
            assert done.returncode == 0, (done.stderr, central.logs())
            facts = json.loads(done.stdout)["model"]
            assert (facts["release"], facts["round"]) == (release, 0)
            start, network = measured(federation, site, release)
            assert close(load_start(site.parent / "state").model.weights, start)
            assert close(load_model(site.parent / "state").weights, network)
            if release == "00002":
                assert central.admin("release", "rollback").returncode == 0
        assert central.admin("site", "remove", "newcomer").returncode == 0
        done = command("f2l-site", "generate", str(site))
        assert done.returncode == 1
        assert "does not know this site, or has removed it" in done.stderr
    # Without the server it is made from the start that is kept.
    before = load_model(site.parent / "state").weights
    done = command("f2l-site", "generate", str(site))
    assert done.returncode == 0
    assert "the server can't be reached" in done.stderr
    assert torch.allclose(load_model(site.parent / "state").weights, before, atol=0.1)
