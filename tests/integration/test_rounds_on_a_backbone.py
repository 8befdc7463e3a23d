"""Rounds in which heads on a frozen backbone are generated: real sites, their files and records."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from clients.onboarding.preflight import check
from clients.site.exported_program import export_model
from clients.site.model_store import load_model, load_start
from clients.site.prediction import Predictor, evaluate
from clients.site.sent_log import utc_now
from clients.site.site import open_site
from clients.site.site_features import backbone_of, on_features
from clients.training.agreed_task import differences
from clients.training.fine_tuning import fine_tune_again
from clients.training.outgoing import probe_message
from f2l_fed.data.picture_address import picture_address
from f2l_fed.errors import LayoutMismatch, TargetError
from f2l_fed.targets.adapter import NotInstalled
from f2l_fed.targets.backbone import InstalledBackbone
from f2l_fed.targets.body import SCALE, body_digest
from f2l_fed.targets.feature_cache import FEATURES
from f2l_fed.wire.messages import ProbeRequest
from f2l_fed.wire.packing import pack_probe_request, unpack_probe_request
from server.cluster.held_out import curves_of, measurements_of
from server.federation.agreement import agreement_of
from server.federation.folder import BACKBONE_FILE, Federation
from server.reporting.report import render_report
from server.simulation.example_pictures import example_pictures
from server.simulation.setup import held_out_sites
from server.simulation.training_sites import training_accuracy
from tests.support.backbones import ADAPTED, NETWORK, installed
from tests.support.backbones import FEATURES as WIDTH
from tests.support.inline import run_inline
from tests.support.small_federation import small_federation

SETTINGS = ("target.name=adapter", "target.adapt=head", "head.pairs=3", "later.steps=3")


@pytest.fixture(scope="module")
def conducted(tmp_path_factory):
    """A federation after two rounds, its data as features, and its backbone."""
    folder = tmp_path_factory.mktemp("on_a_backbone")
    config = installed(folder)
    absolute = InstalledBackbone.of(config, folder)
    federation, divided = small_federation(
        folder / "out", settings=SETTINGS, backbone=absolute.config
    )
    times = [path.stat().st_mtime_ns for path in features(federation)]
    states = run_inline(federation, 2)
    assert [state.step for state in states] == ["done"] * 2
    # The sites found their features in their folders.
    assert [path.stat().st_mtime_ns for path in features(federation)] == times
    return federation, divided, states, absolute


def features(federation):
    return sorted(federation.root.glob(f"sites/*/state/{FEATURES}"))


def site_of(federation, number=1):
    return open_site(federation.root / "sites" / f"site-{number:03d}" / "site.toml")


def test_only_heads_are_generated_and_nothing_of_the_backbone_is_kept_or_moved(conducted):
    federation, _, _, backbone = conducted
    assert federation.target.layout.shapes == ((5, WIDTH), (5,))
    assert federation.target.layout.frozen == backbone.part.digest
    assert federation.body.layout.names == (SCALE,)
    releases = [federation.releases.read(id) for id in ("00001", "00002")]
    bodies = [federation.anchor(None), *map(federation.next_anchor, releases)]
    assert len({body_digest(body) for body in bodies}) == 1
    assert "support.backbones" not in (federation.root / "federation.json").read_text()
    assert Federation.open(federation.root).target.layout == federation.target.layout


def test_the_measurements_are_those_of_any_federation(conducted):
    federation, divided, states, _ = conducted
    rows = training_accuracy(federation, divided, states)
    assert [row["round"] for row in rows] == [1, 2]
    measured = measurements_of(federation.root, "00002", held_out_sites(divided)["seen"])
    assert all(len(site.curves["generated"]) == 6 for site in measured.values())


def test_the_report_shows_pictures_and_what_a_generated_network_says_of_them(conducted):
    federation, divided, _, _ = conducted
    shown = example_pictures(federation, divided)
    assert set(shown) == {"seen"} if divided.held_out["unseen"] is None else {"seen", "unseen"}
    site, data = shown["seen"], divided.held_out["seen"][0]
    assert (site.name, site.total) == (data.name, len(data.y_test))
    # Before any step, as it is measured.
    (curve,) = curves_of(
        federation.root, "00002", held_out_sites(divided)["seen"][:1], ["generated"]
    ).values()
    assert site.right / site.total == pytest.approx(curve["generated"][0])
    assert len(site.classes) == len(data.classes)
    for row in site.classes:
        own = data.own.x[data.own.y == row.number]
        assert row.learnt == tuple(picture_address(one, 64) for one in own[:5])
        further = data.further.x[data.further.y == row.number]
        assert [one.address for one in row.asked] == [
            picture_address(one, 64) for one in further[:5]
        ]
    page = render_report({"held_out": {"seen": None, "unseen": None}}, shown, "By <us>")
    assert page.count("<img ") == sum(
        len(row.learnt) + len(row.asked) for one in shown.values() for row in one.classes
    )
    assert f"right on {site.right} of {site.total}" in page
    assert "By &lt;us&gt;" in page
    wrong = sum(
        one.said != row.number for part in shown.values() for row in part.classes
        for one in row.asked
    )  # fmt: skip
    assert page.count('class="wrong"') == wrong


def test_a_site_predicts_from_its_own_inputs_and_takes_the_whole_network_away(conducted, tmp_path):
    federation, _, _, backbone = conducted
    site = site_of(federation)
    model = load_model(site.state)
    assert (model.facts.backbone, model.facts.features) == (backbone.part.digest, WIDTH)
    assert model.facts.input_shape == tuple(site.train.x.shape[1:])
    installed_there = backbone_of(site, model.facts.frozen)
    found = evaluate(
        Predictor(model=model, reading=site.config.data, backbone=installed_there), site.validation
    )
    assert found["accuracy"] == pytest.approx(model.facts.accuracy)
    export_model(model, tmp_path / "out", installed_there)
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    x = site.validation.x
    head = federation.body.head.module(model.weights) if model.facts.classes == 5 else None
    torch.testing.assert_close(
        program(x[:7]), head(installed_there.front()(x[:7])), rtol=1e-4, atol=1e-5
    )
    assert backbone.part.digest in (tmp_path / "out" / "model.json").read_text()
    assert (tmp_path / "out" / "model.safetensors").stat().st_size < 2000


def test_the_same_start_becomes_the_same_network_again(conducted):
    federation, _, _, _ = conducted
    site = site_of(federation)
    model, start = load_model(site.state), load_start(site.state)
    again, _ = fine_tune_again(site, start, utc_now())
    assert (again.facts.backbone, again.layout) == (model.facts.backbone, model.layout)
    assert len(again.weights) == len(model.weights)


def request(federation):
    return pack_probe_request(
        ProbeRequest(
            frame=federation.probe_frame,
            anchor=federation.anchor(None),
            chain=federation.chain(None),
        )
    )


def test_the_server_sends_a_digest_and_never_a_name(conducted):
    federation, _, _, backbone = conducted
    packed = request(federation)
    assert unpack_probe_request(packed).frame.frozen == backbone.part
    assert NETWORK not in str(packed.config_records)


def test_a_site_with_another_backbone_refuses_before_anything_is_sent(conducted, tmp_path):
    federation, _, _, backbone = conducted
    site = site_of(federation, 2)
    entries = site.sent.entries()
    other = installed(tmp_path, resize=(4, 4))
    text = site.file.read_text()
    theirs = InstalledBackbone.of(other, tmp_path)
    site.file.write_text(text.replace(backbone.config.file, theirs.config.file))
    changed = site_of(federation, 2)
    with pytest.raises(TargetError, match="another backbone") as caught:
        probe_message(changed, request(federation), app=None)
    assert backbone.part.digest in str(caught.value)
    assert theirs.part.digest in str(caught.value)
    assert any(theirs.part.digest in remark for remark in check(site.file).remarks)
    (told,) = differences(changed, agreement_of(federation))
    assert backbone.part.digest in told
    assert theirs.part.digest in told
    site.file.write_text(text.partition("[backbone]")[0] + "[policy]" + text.split("[policy]")[1])
    with pytest.raises(TargetError, match="no backbone is named"):
        probe_message(site_of(federation, 2), request(federation), app=None)
    (none,) = differences(site_of(federation, 2), agreement_of(federation))
    assert "no backbone is named" in none
    site.file.write_text(text)
    assert differences(site_of(federation, 2), agreement_of(federation)) == []
    assert site.sent.entries() == entries


def test_a_request_whose_layout_does_not_name_its_backbone_is_refused(conducted):
    federation, _, _, _ = conducted
    frame = replace(federation.probe_frame, layout="0" * 64)
    lying = pack_probe_request(
        ProbeRequest(frame=frame, anchor=federation.anchor(None), chain=federation.chain(None))
    )
    with pytest.raises(LayoutMismatch):
        probe_message(site_of(federation), lying, app=None)


def test_features_on_a_site_are_those_of_its_examples(conducted):
    federation, divided, _, backbone = conducted
    site, frozen = on_features(site_of(federation), backbone.part)
    assert frozen == backbone.part
    np.testing.assert_array_equal(site.train.x.numpy(), divided.sites[1].x_train)


def test_shared_labels_share_one_head_on_the_backbone(conducted, tmp_path):
    backbone = conducted[3]
    federation, divided = small_federation(
        tmp_path / "out", settings=SETTINGS, backbone=backbone.config, scenario="dirichlet"
    )
    assert [state.step for state in run_inline(federation, 1)] == ["done"]
    assert federation.body is None
    assert federation.frame.frozen == backbone.part
    assert load_model(site_of(federation).state).layout == federation.target.layout
    assert len(measurements_of(federation.root, "00001", held_out_sites(divided)["seen"])) == 2


def test_a_site_with_a_privacy_budget_gets_its_network_and_spends_nothing(conducted, tmp_path):
    backbone = conducted[3]
    federation, _ = small_federation(tmp_path / "out", settings=SETTINGS, backbone=backbone.config)
    private = site_of(federation, 1)
    private.file.write_text(private.file.read_text() + "\n[privacy]\nepsilon = 2.0\n")
    assert [state.step for state in run_inline(federation, 1)] == ["done"]
    assert load_model(private.state).facts.backbone == backbone.part.digest
    assert site_of(federation, 1).budget.spent()["spent"] == 0
    records = federation.zoo.snapshot().records(round=1)
    assert "site-001" not in {record.site for record in records}


def test_a_low_rank_body_of_one_s_own_network_is_trained_by_all(tmp_path):
    name = "tests.support.backbones:adapted_network"
    more = (f"target.name={name}", "episodes.first=4", "episodes.steps=2")
    federation, _ = small_federation(tmp_path / "out", settings=(*SETTINGS, *more))
    assert [state.step for state in run_inline(federation, 2)] == ["done"] * 2
    assert federation.body.layout.names == ("0.second.change", SCALE)
    first, last = federation.anchor(None), federation.next_anchor(federation.releases.promoted())
    assert not first[:-1].any()
    assert last[:-1].any()
    model = load_model(site_of(federation).state)
    export_model(model, tmp_path / "exported")
    program = torch.export.load(tmp_path / "exported" / "model.pt2").module()
    x = site_of(federation).validation.x
    whole = federation.network.logits(model.weights, x)
    torch.testing.assert_close(program(x), whole, rtol=1e-4, atol=1e-5)
    assert len(model.weights) < 200


@pytest.mark.parametrize("part", ADAPTED)
def test_a_part_of_the_backbone_is_trained_by_all_from_cached_values(part, tmp_path):
    config = installed(tmp_path, **ADAPTED[part])
    backbone = InstalledBackbone.of(config, tmp_path)
    more = ("episodes.first=4", "episodes.steps=2")
    federation, divided = small_federation(
        tmp_path / "out", settings=(*SETTINGS, *more), backbone=backbone.config
    )
    assert federation.config.target.adapt == part
    times = [path.stat().st_mtime_ns for path in features(federation)]
    assert [state.step for state in run_inline(federation, 2)] == ["done"] * 2
    assert [path.stat().st_mtime_ns for path in features(federation)] == times
    assert federation.body.layout.sizes == (backbone.part.adapted, 1)
    first, last = federation.anchor(None), federation.next_anchor(federation.releases.promoted())
    assert not first[:-1].any()
    assert last[:-1].any()
    # A server without the backbone has the same layouts, and knows a digest and three numbers.
    file = federation.root / BACKBONE_FILE
    text = file.read_text()
    file.unlink()
    elsewhere = Federation.open(federation.root)
    assert elsewhere.body.layout == federation.body.layout
    assert elsewhere.body.template.get_submodule("0").__class__ is NotInstalled
    packed = request(elsewhere)
    assert unpack_probe_request(packed).frame.frozen == backbone.part
    assert NETWORK not in str(packed.config_records)
    file.write_text(text)
    measured = measurements_of(federation.root, "00002", held_out_sites(divided)["seen"])
    assert all(len(site.curves["generated"]) == 6 for site in measured.values())
    site = site_of(federation)
    model = load_model(site.state)
    taken = backbone_of(site, model.facts.frozen)
    found = evaluate(
        Predictor(model=model, reading=site.config.data, backbone=taken), site.validation
    )
    assert found["accuracy"] == pytest.approx(model.facts.accuracy)
    export_model(model, tmp_path / "exported", taken)
    program = torch.export.load(tmp_path / "exported" / "model.pt2").module()
    x = site.validation.x
    whole = federation.network.logits(model.weights, taken.front()(x))
    torch.testing.assert_close(program(x), whole, rtol=1e-4, atol=1e-5)
    again, _ = fine_tune_again(site, load_start(site.state), utc_now())
    assert again.layout == model.layout
