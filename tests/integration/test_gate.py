"""Bad retrainings, each really made: no site ever gets one."""

from __future__ import annotations

import dataclasses
import itertools
import json
import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from f2l_fed.errors import ReleaseError
from f2l_fed.flow import FlowFit, fit_flow
from f2l_fed.generator.serialization import save_generator
from f2l_fed.zoo import NewRecord
from server.federation.folder import Federation
from server.federation.release_registry import ReleaseRegistry
from server.generator import gate
from server.generator.retrain import retrain
from server.rounds import state as round_state
from server.rounds import state_files
from tests.support.conducted import after_rounds
from tests.support.inline import run_inline
from tests.support.small_federation import ANY_RELEASE
from tests.support.waiting import PATIENCE_S

LENIENT = ("gate.min_explained=-100", "gate.min_conditioning=-100")


def after_one_round(out: Path, *settings: str, sites: int = 8) -> Federation:
    federation = after_rounds(out, sites=sites, settings=("probe.anchors=1", *settings))
    (state,) = state_files.load_states(federation.root / "rounds")
    assert state.promoted, state.reason
    return federation


def poison(federation: Federation, change: object) -> None:
    """Sites send once more, in round 2, what a function makes of their records."""
    snapshot = federation.zoo.snapshot()
    records = snapshot.records()
    contexts, weights = change(snapshot.contexts(records), snapshot.weights(records))
    federation.zoo.append(
        [
            NewRecord(
                key=record.key.replace("1/", "2/", 1),
                site=record.site,
                round=2,
                parent="00001",
                weights=np.ascontiguousarray(weights[row], np.float32),
                context=np.ascontiguousarray(contexts[row], np.float32),
                metrics=dict(record.metrics),
            )
            for row, record in enumerate(records)
        ]
    )


def rejection(federation: Federation) -> str:
    """Retrains and judges what is in the zoo; why the release was rejected, or the round failed."""
    state = round_state.begun(2, "00001", 8)
    state_files.save_state(federation.root / "rounds", dataclasses.replace(state, step="retrain"))
    done = run_inline(federation, 0)[-1]
    assert not done.promoted
    promoted = federation.releases.promoted()
    assert promoted is not None
    assert promoted.id == "00001"
    assert done.reason
    return done.reason


def flipped(contexts: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return contexts, -weights


def colluding(contexts: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return contexts, np.repeat(weights[:1], len(weights), axis=0)


def noisy(contexts: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return contexts, np.random.default_rng(0).normal(size=weights.shape)


def exchanged(contexts: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.roll(contexts, 4, axis=0), 3 * np.roll(weights, 8, axis=0)


@pytest.mark.parametrize("change", [flipped, colluding, noisy, exchanged])
def test_a_poisoned_zoo_reaches_no_site(tmp_path, change):
    federation = after_one_round(tmp_path / "out", *LENIENT)
    strict = dataclasses.replace(federation.config.gate, min_explained=-0.1, min_conditioning=-0.1)
    reconfigure(federation, gate=strict)
    poison(federation, change)
    assert rejection(Federation.open(federation.root))


def reconfigure(federation: Federation, **sections: object) -> None:
    config = dataclasses.replace(federation.config, **sections)
    (federation.root / "federation.json").write_text(json.dumps(config.to_json()))


def test_a_collapsed_generator_is_rejected(tmp_path):
    federation = after_one_round(tmp_path / "out", *LENIENT)
    # Draws without any spread around predictions that know next to nothing.
    reconfigure(federation, sample=dataclasses.replace(federation.config.sample, temperature=0.0))
    poison(federation, noisy)
    assert "dispersion" in rejection(Federation.open(federation.root))


def test_a_zoo_of_exploded_networks_reaches_no_site(tmp_path):
    federation = after_one_round(tmp_path / "out", *LENIENT)
    poison(federation, lambda contexts, weights: (contexts, weights * 1e18))
    assert "times as far" in rejection(Federation.open(federation.root))


def test_honest_rounds_drift_little(tmp_path):
    federation = after_rounds(tmp_path / "out", 4, sites=8)
    made = [federation.releases.read(id) for id in federation.releases.ids()]
    moved = [gate.drift(federation, b, a) for a, b in itertools.pairwise(made)]
    assert max(moved) < 0.5 * federation.config.gate.max_drift


def test_not_even_an_administrator_promotes_what_is_not_finite(tmp_path):
    federation = after_one_round(tmp_path / "out", *LENIENT)
    registry = federation.releases
    generator = registry.generator("00001")
    broken = dataclasses.replace(generator, mean=generator.mean * torch.nan)
    release = dataclasses.replace(
        registry.read("00001"), id="00002", state="candidate", parent="00001"
    )
    fit = registry.path / "00002"
    shutil.copytree(registry.path / "00001", fit)
    save_generator(broken, fit / "generator.safetensors")
    (fit / "release.json").write_text(
        (registry.path / "00001/release.json").read_text().replace('"00001"', '"00002"', 1)
    )
    reasons = gate.objections(federation, release)
    assert any("not finite" in reason for reason in reasons)
    with pytest.raises(ReleaseError, match="not finite"):
        registry.promote("00002")
    promoted = registry.promoted()
    assert promoted is not None
    assert promoted.id == "00001"


def test_a_release_that_cannot_be_read_is_rejected(tmp_path):
    federation = after_one_round(tmp_path / "out", *LENIENT)
    release = federation.releases.read("00001")
    file = federation.releases.path / "00001/generator.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    assert any("can't read" in reason for reason in gate.objections(federation, release))


def test_nobody_rolls_back_to_a_release_that_cannot_be_read(tmp_path):
    federation = after_rounds(tmp_path / "out", 2, settings=("probe.anchors=1", *ANY_RELEASE))
    registry = federation.releases
    file = registry.path / "00001/generator.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:1000])
    with pytest.raises(ReleaseError, match="can't read the generator"):
        registry.rollback()
    assert (registry.read("00001").state, registry.read("00002").state) == ("retired", "promoted")
    file.write_bytes(whole)
    assert registry.rollback().id == "00001"


def test_a_release_from_another_parent_than_sites_have_is_rejected(tmp_path):
    federation = after_one_round(tmp_path / "out", *LENIENT)
    release = dataclasses.replace(federation.releases.read("00001"), parent="00007")
    assert any("00007" in reason for reason in gate.objections(federation, release))


def test_who_is_erased_while_a_release_is_fitted_is_not_in_it(tmp_path):
    federation = after_one_round(tmp_path / "out", *LENIENT)
    commit, calls = federation.zoo.snapshot().commit, []

    def fit_and_erase(*given: Any, **how: Any) -> FlowFit:
        calls.append(1)
        if len(calls) == 1:
            federation.zoo.forget("site-001")
        return fit_flow(*given, **how)

    release = retrain(federation.root, "00002", commit, fit_and_erase)
    assert len(calls) == 2
    assert "site-001" not in release.sites
    # A release that was written just before is rejected.
    federation.zoo.forget("site-002")
    assert any(
        "site-002, erased since" in reason for reason in gate.objections(federation, release)
    )


def switch(path: Path, id: str, times: int) -> None:
    registry = ReleaseRegistry(path)
    for _ in range(times):
        registry.promote(id)


def test_processes_that_promote_at_the_same_time_leave_one_release_promoted(tmp_path):
    federation = after_one_round(tmp_path / "out", *LENIENT)
    run_inline(federation, 1)
    context = multiprocessing.get_context("spawn")
    path = federation.releases.path
    switching = [context.Process(target=switch, args=(path, id, 20)) for id in ("00001", "00002")]
    for process in switching:
        process.start()
    for process in switching:
        process.join(PATIENCE_S)
        assert process.exitcode == 0
    states = [federation.releases.read(id).state for id in federation.releases.ids()]
    assert sorted(states) == ["promoted", "retired"]
    stored = [federation.releases._stored(id).state for id in federation.releases.ids()]
    assert stored == states
