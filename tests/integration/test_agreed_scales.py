"""Sites agree on the scales of their columns before the first round, as simulated ones do."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from clients.commands.data import agree_on_scales
from clients.onboarding.kit import read_kit
from clients.onboarding.preflight import check
from clients.onboarding.scale_requests import take_scales, with_scales_of_server
from clients.onboarding.site_template import register_site
from clients.site.site import open_site
from clients.site.site_folder import SiteFolder
from clients.training.agreed_task import differences
from f2l_fed.errors import F2LError, UsageError
from server.federation.folder import Federation
from server.federation.settings import create, refresh
from server.generator.network_service import NetworkService
from server.membership.network_api import Networks
from tests.support.gateway import gateway_running
from tests.support.inline import run_inline
from tests.unit.server.simulation.test_site_folders import simulated

NAMES = ("east", "north", "south", "west")
NONSENSE = (
    b"POST /v1/site/scales HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"
)
FEATURES = ("length", "stamp")
TASK = [
    "target.input_shape=[2]",
    "target.classes=2",
    "target.name=mlp",
    "shared_labels=true",
    'labels=["dent","ok"]',
    "scaling.sites=4",
    "scaling.ranges={length=[900000, 1100000], stamp=[1700000000, 1800000000]}",
]
COLUMNS = 'columns = ["length", "stamp"]'


def table(path: Path, seed: int, factor: float = 1.0) -> Path:
    """Numbers far from 0; other means at each site, and with a factor another unit."""
    rng = np.random.default_rng(seed)
    lines = ["length,stamp,result"]
    for n in range(60):
        length = factor * rng.normal(1e6 + 5 * seed, 10)
        lines.append(
            f"{length!r},{1_760_000_000 + int(rng.integers(10_000))},{('dent', 'ok')[n % 2]}"
        )
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def gateway(tmp_path):
    root = tmp_path / "central"
    federation, _ = create(root, {}, TASK, {}, "--set")
    networks = Networks(service=NetworkService(federation.root), largest_bytes=2**20)
    with gateway_running(root, networks=networks) as running:
        yield running


def joined(gateway, tmp_path: Path, name: str, data: Path, more: str = "") -> Path:
    """The site.toml of a site that has registered and asks for the agreed scales."""
    kit = gateway.kit(name)
    path, _ = register_site(read_kit(kit, now=datetime.now(UTC)), kit, tmp_path / name, data)
    text = path.read_text().replace('label = ""', 'label = "result"')
    text = re.sub(r"^columns = .*$", COLUMNS, text, flags=re.MULTILINE)
    text = re.sub(r"^indicators = .*$", "", text, flags=re.MULTILINE)
    text = text.replace('gaps = "indicator"', 'gaps = "median"')
    assert '\nscale = "agreed"' in text
    path.write_text(text.replace("[server]", f"{more}\n[server]") if more else text)
    return path


def told(path: Path) -> None:
    """Lets a site tell its figures, as its policy allows."""
    text = path.read_text()
    path.write_text(text.replace('"probe update body"', '"probe update body scales"'))
    agree_on_scales(path)


def test_a_simulation_and_a_deployment_agree_on_the_same_scales(gateway, tmp_path, capsys):
    names = [*NAMES, "zeta"]
    data = {name: table(tmp_path / f"{name}.csv", seed) for seed, name in enumerate(names)}
    divided = simulated(
        tmp_path,
        data,
        "data.label=result",
        "data.columns=length,stamp",
        "scaling.sites=4",
        "split.held_out_shots=10",
    )
    names = [one.name for one in divided.sites]
    assert len(names) == 4
    simulation = Federation.open(tmp_path / "out")
    paths = [joined(gateway, tmp_path, name, data[name]) for name in names]
    with pytest.raises(UsageError, match="the figures of 4 sites, got those of 0"):
        gateway.membership.require_scales()

    # Nobody but a site is heard, and only with figures.
    assert gateway.status(None, NONSENSE) == 401
    assert gateway.status(tmp_path / names[0], NONSENSE) == 409
    # Nothing leaves unless the policy names it.
    with pytest.raises(F2LError, match="nothing was sent: this kind of answer may not leave"):
        agree_on_scales(paths[0])
    assert SiteFolder.read(paths[0]).sent.entries() == []
    for path in paths[:3]:
        told(path)
    agree_on_scales(paths[0])
    assert "those of 3 of 4 sites so far" in capsys.readouterr().out
    problems = check(paths[0], compare=differences).problems
    assert any("scales of the federation are not here yet" in one for one in problems)
    with pytest.raises(UsageError, match=f"got those of 3: {', '.join(sorted(names[:3]))}"):
        gateway.membership.require_scales()
    told(paths[3])
    gateway.membership.require_scales()
    assert "length: mean 1.0000" in capsys.readouterr().out

    federation = Federation.open(gateway.root)
    assert dict(federation.scales) == dict(simulation.scales)
    assert federation.frame.scales == simulation.frame.scales != ""
    assert not (gateway.root / "scales").exists()
    # A restart of the server with its settings leaves them.
    assert refresh(gateway.root)[0].scales == federation.scales
    for path, one in zip(paths, divided.sites, strict=True):
        folder = with_scales_of_server(SiteFolder.read(path), now=datetime.now(UTC))
        site = open_site(folder.file)
        assert site.encoding.columns == one.encoding.columns
        assert np.array_equal(site.train.x.numpy(), one.x_train)
        assert np.array_equal(site.validation.x.numpy(), one.x_test)
        assert check(path, compare=differences).problems == ()
    # Not the site's own.
    means = [float(open_site(path).train.x[:, 0].mean()) for path in paths]
    assert min(means) < -0.2
    assert max(means) > 0.2
    entry = SiteFolder.read(paths[0]).sent.entries()[0]
    assert entry["kind"] == "scales"
    assert entry["fields"]["columns"] == list(FEATURES)

    text = paths[0].read_text()
    paths[0].write_text(text.replace('scale = "agreed"', 'scale = "standard"'))
    (problem,) = check(paths[0], compare=differences).problems
    assert "not scaled as the federation has agreed" in problem


def test_a_wrong_site_spoils_nothing_and_a_private_one_adds_noise(gateway, tmp_path):
    paths = [
        joined(gateway, tmp_path, name, table(tmp_path / f"{name}.csv", seed, factor))
        for seed, (name, factor) in enumerate(zip(NAMES, (1, 1e9, 1, 1), strict=True), 1)
    ]
    text = paths[3].read_text()
    text = re.sub(r"^epsilon = .*$", "epsilon = 0.1", text, flags=re.MULTILINE)
    paths[3].write_text(text.replace('scale = "agreed"', 'scale = ""'))
    with pytest.raises(F2LError, match="noise of the site's privacy budget would hide"):
        told(paths[3])
    assert not (tmp_path / "west/state/privacy.json").exists()
    text = paths[3].read_text()
    paths[3].write_text(text.replace("epsilon = 0.1", "epsilon = 50.0"))
    for path in paths:
        told(path)
    site = SiteFolder.read(paths[3])
    assert site.budget is not None
    assert 0 < site.budget.spent()["spent"] < 50
    assert site.budget.spent()["answers"] == 1
    # Told again, and nothing more is spent.
    agree_on_scales(paths[3])
    assert site.budget.spent()["answers"] == 1
    scales = take_scales(site, now=datetime.now(UTC)).agreed
    assert 9e5 < scales["length"][0] < 1.1e6
    assert 0 < scales["length"][1] < 2e5
    assert scales["stamp"][0] == pytest.approx(1.76e9, rel=1e-2)


def test_a_round_refuses_a_site_that_scales_otherwise_and_its_release_names_the_scales(tmp_path):
    data = {f"s{n}": table(tmp_path / f"{n}.csv", n) for n in range(6)}
    settings = ("data.label=result", "data.columns=length,stamp", "split.held_out_shots=10")
    simulated(tmp_path, data, *settings, "scaling.sites=4")
    federation = Federation.open(tmp_path / "out")
    other = tmp_path / "out/sites/site-000/site.toml"
    text = re.sub(r"^scales\..*$", "", other.read_text(), flags=re.MULTILINE)
    other.write_text(text.replace('scale = "agreed"', 'scale = "standard"'))
    run_inline(federation, 1)
    ends = [json.loads(line) for line in (tmp_path / "out/events.jsonl").read_text().splitlines()]
    refused = {one["site"]: one["finding"] for one in ends if one["event"] == "site.failed"}
    assert list(refused.values()) == ["scales-not-agreed"]
    assert federation.releases.read("00001").scales == federation.frame.scales != ""
