"""A real Flower deployment on loopback: SuperLink, two SuperNodes, `flwr run`, one round."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import server
from server import rounds
from server.federation import Federation
from tests.support.deployment import deployment
from tests.support.inline import conductor
from tests.support.small_federation import small_federation

BUNDLE = Path(server.__path__[0]) / "bundle"


@pytest.mark.deployment
@pytest.mark.ray
@pytest.mark.slow
def test_two_supernodes_finish_a_round_and_nothing_is_left_behind(tmp_path):
    federation, _ = small_federation(
        tmp_path / "out", sites=4, settings=("round.timeout_s=60", "ray.cpus=1")
    )
    root = federation.root
    files = sorted((root / "sites").glob("*/site.toml"))
    # Two sites came before, so that two more make the four that a retraining needs.
    early = conductor(federation, files[:2]).run(1, 2)
    assert early[0].step == "failed"
    assert {r.site for r in federation.zoo.snapshot().records()} == {"site-000", "site-001"}

    with deployment(tmp_path / "flower", sites=files[2:], app_dir=BUNDLE, env={}) as running:
        result = running.run({"workdir": str(root), "rounds": 1, "sites": 2}, timeout_s=100)
        assert result.status == "finished:completed", result.log_text + running.logs()
    assert running.open_ports() == []
    assert running.stray_processes() == {}

    state = rounds.load_all(root / "rounds")[-1]
    assert (state.number, state.step, state.accepted) == (2, "done", ("site-002", "site-003"))
    again = Federation.open(root)
    assert {r.site for r in again.zoo.snapshot().records(round=2)} == {"site-002", "site-003"}
    assert again.zoo.verify() == ()
    assert set(again.releases.read("00002").sites) == {f"site-{n:03d}" for n in range(4)}
    for path in files[2:]:
        lines = (path.parent / "state/sent.jsonl").read_text().splitlines()
        assert [json.loads(line)["kind"] for line in lines] == ["probe", "update"]
