"""Whole rounds with the real apps and the real zoo, over a loopback grid."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.client_app import app as honest_app
from f2l_fed.evaluation.arm_names import keys
from f2l_fed.local_training.config import LOSSES
from f2l_fed.targets.layout import WeightLayout
from f2l_fed.wire.messages import NUMBERS, Update
from f2l_fed.wire.packing import pack_update, unpack_update
from server.cluster.held_out import curves_of
from server.erasure import erase_beside_zoo
from server.generator.candidates import CandidateFactory, candidates_for
from server.generator.release_records import release_records
from server.rounds import state_files
from server.rounds.state import RoundState
from server.simulation.setup import held_out_sites
from tests.support.conducted import after_rounds
from tests.support.inline import conductor, run_inline
from tests.support.loopback import LoopbackGrid
from tests.support.small_federation import small_federation


def site_files(root: Path) -> list[Path]:
    return sorted((root / "sites").glob("*/site.toml"))


def events(root: Path) -> list[dict]:
    return [json.loads(line) for line in (root / "events.jsonl").read_text().splitlines()]


def test_three_rounds_fill_the_zoo_and_improve_the_generated_start(tmp_path):
    federation, divided = small_federation(tmp_path / "out", sites=8)
    states = run_inline(federation, 3)
    assert [state.step for state in states] == ["done"] * 3
    records = federation.zoo.snapshot().records()
    names = [site.name for site in divided.sites]
    assert sorted(r.key for r in records) == sorted(
        f"{n}/{s}/{episode}" for n in (1, 2, 3) for s in names for episode in (0, 1)
    )
    assert federation.zoo.verify() == ()
    assert federation.releases.ids() == ["00001", "00002", "00003"]
    assert [federation.releases.read(i).state for i in federation.releases.ids()] == [
        "retired",
        "retired",
        "promoted",
    ]
    # Round 1 starts from the anchor, which tells no classes apart; later rounds don't.
    assert states[0].accuracy_before == pytest.approx(0.2)
    assert states[2].accuracy_before > 0.5
    assert {r.parent for r in records if r.round == 3} == {"00002"}


def test_every_arm_is_measured_at_sites_that_no_round_has_seen(tmp_path):
    federation, divided = small_federation(tmp_path / "out")
    run_inline(federation, 1)
    sites = held_out_sites(divided)["seen"]
    assert sites is not None
    assert held_out_sites(divided)["unseen"] is None
    curves = curves_of(federation.root, "00001", sites)
    assert set(curves) == {"seen-000", "seen-001"}
    assert set(curves["seen-000"]) == set(keys("all"))
    known = {record.site for record in federation.zoo.snapshot().records()}
    assert not known & set(curves)


def test_same_seed_gives_the_same_bits(tmp_path):
    made = []
    for name in ("a", "b"):
        federation, _ = small_federation(tmp_path / name)
        run_inline(federation, 2)
        made.append((federation.root / "releases/00002/generator.safetensors").read_bytes())
    assert made[0] == made[1]


def test_an_interrupted_round_goes_on_without_asking_sites_again(tmp_path):
    federation = after_rounds(tmp_path / "out")
    (done,) = state_files.load_states(federation.root / "rounds")
    before = len(federation.zoo.snapshot().records())
    # As if the process had died between the exchange and the retraining.
    state_files.save_state(
        federation.root / "rounds",
        dataclasses.replace(done, step="retrain", release="", promoted=False),
    )
    resumed, following = run_inline(federation, 1)
    assert (resumed.number, resumed.step, following.number) == (1, "done", 2)
    assert len(federation.zoo.snapshot().records()) == 2 * before == 24


def test_a_round_that_died_mid_exchange_asks_only_the_sites_that_are_missing(tmp_path):
    federation, _ = small_federation(tmp_path / "out")
    files = site_files(federation.root)
    first_four = conductor(federation, files[:4]).run(1, 4)[0]
    state_files.save_state(
        federation.root / "rounds",
        dataclasses.replace(first_four, step="exchange", release="", promoted=False),
    )
    asked_before = len(sent(files[0], "update"))
    resumed = conductor(federation, files).run(0, 6)[0]
    assert len(resumed.accepted) == 6
    assert len(sent(files[0], "update")) == asked_before
    assert len(sent(files[5], "update")) == 1
    keys = [record.key for record in federation.zoo.snapshot().records()]
    assert len(keys) == len(set(keys)) == 12


def sent(site_file: Path, kind: str) -> list[dict]:
    lines = (site_file.parent / "state/sent.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["kind"] == kind]


def test_without_a_quorum_the_round_fails_with_the_figures_and_keeps_what_came(tmp_path):
    settings = ("round.quorum=0.9", "round.timeout_s=0.5")
    federation, _ = small_federation(tmp_path / "out", settings=settings)
    files = site_files(federation.root)
    grid = LoopbackGrid(
        honest_app, {n: {"site": str(f)} for n, f in enumerate(files, 1)}, silent={2, 3, 4, 5, 6}
    )
    # Silent nodes don't introduce themselves, but they count among those that were asked.
    state = conductor(federation, files, grid=grid).run(1, 6)[0]
    assert state.sites == 6
    assert state.step == "failed"
    assert state.reason == "updates of 1 of 6 sites were accepted, 6 are the quorum"
    assert len(federation.zoo.snapshot().records()) == 2


Tamper = Callable[[Update], Update]


def tampering_app(attacker: str, tamper: Tamper, layout: WeightLayout) -> ClientApp:
    """The honest app, except that one site changes its updates on their way out."""
    app = ClientApp()

    @app.query("probe")
    def probe(message: Message, context: Context) -> Message:
        return honest_app(message, context)

    @app.train("task")
    def task(message: Message, context: Context) -> Message:
        reply = honest_app(message, context)
        update = unpack_update(reply.content, layout)
        if update.site == attacker:
            reply.content = pack_update(tamper(update), layout)
        return reply

    return app


def run_with_attacker(out: Path, tamper: Tamper) -> tuple[RoundState, object]:
    federation, _ = small_federation(out)
    files = site_files(out)
    app = tampering_app("site-002", tamper, federation.target.layout)
    grid = LoopbackGrid(app, {n: {"site": str(f)} for n, f in enumerate(files, 1)})
    return conductor(federation, files, grid=grid).run(1, 6)[0], federation


def altered(**changes: object) -> Tamper:
    return lambda update: dataclasses.replace(update, **changes)


@pytest.mark.parametrize(
    ("tamper", "reason"),
    [
        (
            lambda u: dataclasses.replace(u, weights=u.weights * torch.nan),
            "weights that are not finite: networks 1",
        ),
        (
            lambda u: dataclasses.replace(u, probes=u.probes * torch.inf),
            "a probe that is not finite: networks 2",
        ),
        (lambda u: dataclasses.replace(u, probes=u.probes * 0), "an empty probe"),
        (altered(round=7), "an update for round 7"),
        (altered(chosen=("sample-99",)), "a start that is not among the candidates"),
        (
            altered(numbers={"accuracy_after": 1.5}),
            "an impossible declared number (accuracy_after): "
            "value 1.5, min allowed 0, max allowed 1",
        ),
        (altered(numbers={"secret": 1.0}), "an unknown declared number: got 'secret'."),
    ],
)
def test_a_bad_update_is_rejected_with_a_reason_and_the_others_go_on(tmp_path, tamper, reason):
    state, federation = run_with_attacker(tmp_path / "out", tamper)
    assert state.rejected == {"site-002": reason}
    assert state.step == "done"
    assert len(state.accepted) == 5
    assert "site-002" not in federation.releases.read("00001").sites
    rejected = [e for e in events(tmp_path / "out") if e["event"] == "site.rejected"]
    assert [(e["site"], e["reason"]) for e in rejected] == [("site-002", reason)]


def test_an_outlying_update_that_came_too_early_to_be_compared_is_left_out_of_retraining(tmp_path):
    federation, _ = small_federation(tmp_path / "out", sites=9)
    files = site_files(tmp_path / "out")
    app = tampering_app(
        "site-002",
        lambda u: dataclasses.replace(u, weights=u.weights * 30),
        federation.target.layout,
    )
    grid = LoopbackGrid(app, {n: {"site": str(f)} for n, f in enumerate(files, 1)})
    state = conductor(federation, files, grid=grid).run(1, 9)[0]
    release = federation.releases.read(state.release)
    assert "site-002" in state.accepted
    assert list(release.left_out) == ["site-002"]
    assert "site-002" not in release.sites


def test_a_refusing_site_is_named_with_its_code_only(tmp_path):
    federation, _ = small_federation(tmp_path / "out")
    files = site_files(federation.root)
    stubborn = files[1].read_text().replace("minimum_examples = 1", "maximum_steps = 20")
    files[1].write_text(stubborn)
    state = run_inline(federation, 1)[0]
    # The probe's 10 steps are allowed, the task's 40 are not.
    assert set(state.rejected) == {"site-001"}
    assert "(too-many-steps)" in state.rejected["site-001"]


def test_two_nodes_can_not_go_by_one_name(tmp_path):
    federation, _ = small_federation(tmp_path / "out")
    files = site_files(federation.root)
    state = conductor(federation, [*files, files[0]]).run(1, 7)[0]
    assert state.sites == 6
    failed = [e for e in events(federation.root) if e["event"] == "site.failed"]
    assert [e["reason"] for e in failed] == ["the name of another connected site"]


def test_an_update_carries_parameters_and_allowed_numbers_and_nothing_else(tmp_path):
    federation, _ = small_federation(tmp_path / "out")
    files = site_files(federation.root)
    seen: list[RecordDict] = []
    app = ClientApp()

    @app.query("probe")
    def probe(message: Message, context: Context) -> Message:
        return honest_app(message, context)

    @app.train("task")
    def task(message: Message, context: Context) -> Message:
        reply = honest_app(message, context)
        seen.append(reply.content)
        return reply

    grid = LoopbackGrid(app, {n: {"site": str(f)} for n, f in enumerate(files, 1)})
    conductor(federation, files, grid=grid).run(1, 6)
    size = federation.target.layout.size
    for content in seen:
        assert set(content) == {"update", "arrays", "numbers"}
        shapes = {name: tuple(array.shape) for name, array in content["arrays"].items()}
        assert shapes == {"weights": (1, size), "probes": (2, size)}
        assert set(content.metric_records["numbers"]) == set(NUMBERS) - set(LOSSES)
        assert set(content.config_records["update"]) == {
            "version",
            "protocol",
            "site",
            "round",
            "chosen",
            "episodes",
            "layout",
        }


def test_rounds_go_on_after_a_site_was_erased(tmp_path):
    federation = after_rounds(tmp_path / "out", 2, sites=4)
    gone, *others = sorted({record.site for record in federation.zoo.snapshot().records()})
    opened = CandidateFactory.open(federation, "00002")
    federation.zoo.forget(gone)
    erase_beside_zoo(federation, gone)
    assert not opened.is_current()
    assert CandidateFactory.open(federation, "00002").sites == tuple(others)
    files = [path for path in site_files(federation.root) if path.parent.name != gone]
    (state,) = conductor(federation, files).run(1, len(files))
    assert (state.step, state.accepted, state.promoted) == ("done", tuple(others), True)
    assert federation.releases.read("00003").sites == tuple(others)


def test_an_erased_site_may_come_back(tmp_path):
    federation = after_rounds(tmp_path / "out", 2, sites=4)
    gone = min(record.site for record in federation.zoo.snapshot().records())
    federation.zoo.forget(gone)
    erase_beside_zoo(federation, gone)
    (state,) = run_inline(federation, 1)
    assert (state.step, len(state.accepted), state.promoted) == ("done", 4, True)
    records = federation.zoo.snapshot().records(site=gone)
    assert {record.round for record in records} == {3}


def test_a_release_whose_other_site_was_erased_still_makes_candidates(tmp_path):
    federation, _ = small_federation(
        tmp_path / "out", sites=2, settings=("candidates.nearest=true",)
    )
    run_inline(federation, 1)
    first, second = federation.releases.read("00001").sites
    probe = release_records(federation, federation.releases.read("00001"), [1]).contexts
    federation.zoo.forget(first)
    offered = candidates_for(federation, "00001", [second], probe[None])[second][0]
    assert set(offered) == {"prior", "global_mean", "sample-0"}


def test_a_site_that_is_erased_during_an_exchange_is_asked_in_the_next_round(tmp_path):
    settings = ("round.in_flight=1",)
    federation = after_rounds(tmp_path / "out", sites=4, settings=settings)
    files, gone = site_files(federation.root), ""

    def erasing(event: str, fields: Mapping[str, object]) -> None:
        nonlocal gone
        if event == "site.accepted" and not gone:
            gone = files[-1].parent.name
            federation.zoo.forget(gone)
            erase_beside_zoo(federation, gone)

    first, second = conductor(federation, files, listener=erasing).run(2, len(files))
    assert (first.step, len(first.accepted)) == ("done", 3)
    assert (second.step, len(second.accepted)) == ("done", 4)
