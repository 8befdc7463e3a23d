"""A federation on a transformer of texts, as sites see it; where transformers is installed."""

from __future__ import annotations

import csv
import json

import pytest
import torch

from clients.commands.data import show_preview
from clients.onboarding.preflight import check
from clients.site.exported_program import export_model
from clients.site.model_store import load_model
from clients.site.prediction import Predictor, evaluate
from clients.site.site import open_site
from clients.site.site_features import backbone_of
from clients.training.agreed_task import differences
from f2l_fed.config import load_simulation_config
from f2l_fed.data.readers.findings import Findings
from f2l_fed.errors import DataError, UsageError
from f2l_fed.targets.feature_cache import FEATURES
from server.commands.target import prepare as prepare_command
from server.federation.agreement import agreement_of
from server.simulation.setup import Simulation, prepare
from tests.support.inline import run_inline
from tests.support.small_federation import SETTINGS
from tests.support.texts import HIDDEN, TOKENS, transformer_folder, write_table

TEXT = ("data.text=words", "data.label=topic", "data.text_bytes=96")


def prepared(folder, *settings):
    own = [text for text in SETTINGS if not text.startswith("target.")]
    config = load_simulation_config(None, [*own, "seed=1", "head.pairs=3", *TEXT, *settings])
    return prepare(
        Simulation(
            data=(str(folder / "texts.csv"),),
            scenario="few-shot",
            sites=5,
            held_out=2,
            rounds=1,
            out=folder / "out",
            config=config.federation,
            reading=config.reading,
            backbone=config.backbone,
        ),
        force=True,
    )


@pytest.fixture(scope="module")
def conducted(tmp_path_factory):
    """The folder of a federation after a round on a tiny transformer with an adapted part."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("on_texts")
    transformer_folder(folder / "small")
    write_table(folder / "texts.csv", 60)
    prepare_command(
        f"hf:{folder / 'small'}",
        folder / "backbone.safetensors",
        like=write_table(folder / "public.csv", 8, seed=1),
        text="words",
        text_bytes=96,
        tokens=TOKENS,
        adapt="lora",
        layer=["model.encoder.layer.1"],
    )
    federation, _ = prepared(
        folder,
        "target.adapt=lora",
        f"backbone.file={folder / 'backbone.safetensors'}",
        f"backbone.network=hf:{folder / 'small'}",
    )
    (state,) = run_inline(federation, 1)
    assert state.step == "done"
    return folder, federation


def site_of(conducted):
    _, federation = conducted
    return open_site(federation.root / "sites" / "site-001" / "site.toml")


def test_sites_learn_topics_from_their_texts(conducted):
    site = site_of(conducted)
    assert site.train.x.shape[1:] == (96,)
    assert (site.state / FEATURES).stat().st_size > 0
    model = load_model(site.state)
    backbone = backbone_of(site, model.facts.frozen)
    predictor = Predictor(model=model, reading=site.config.data, backbone=backbone)
    found = evaluate(predictor, site.validation)
    assert found["accuracy"] == pytest.approx(model.facts.accuracy)
    assert found["accuracy"] > 0.5
    assert differences(site, agreement_of(conducted[1])) == []
    assert check(site.file, connect=False).problems == ()


def test_new_texts_are_predicted_and_evaluated_from_a_table(conducted, tmp_path):
    site = site_of(conducted)
    model = load_model(site.state)
    backbone = backbone_of(site, model.facts.frozen)
    predictor = Predictor(model=model, reading=site.config.data, backbone=backbone)
    rows = write_table(tmp_path / "new.csv", 3, seed=5)
    count, batches = predictor.predict(rows, Findings("new"), threshold=0)
    assert next(one.source for batch in batches for one in batch) == "new.csv:2"
    assert count == 24
    with (tmp_path / "own.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("words", "label"), ("t1w1", "0"), ("t2w1 t2w2", "1")])
    assert len(predictor.labelled(tmp_path / "own.csv", Findings("own")).y) == 2
    (tmp_path / "bare.csv").write_text("word\na\n")
    with pytest.raises(DataError, match="columns are missing"):
        predictor.predict(tmp_path / "bare.csv", Findings("bare"), threshold=0)


def test_a_preview_shows_texts(conducted, capsys):
    show_preview(site_of(conducted).file)
    assert "common" in capsys.readouterr().out
    show_preview(site_of(conducted).file, as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert all("w" in one["text"] for one in shown["examples"])
    assert shown["features"] == []


def test_an_exported_program_takes_tokens_and_names_their_tokenizer(conducted, tmp_path):
    site = site_of(conducted)
    model = load_model(site.state)
    backbone = backbone_of(site, model.facts.frozen)
    export_model(model, tmp_path, backbone)
    program = torch.export.load(tmp_path / "model.pt2").module()
    facts = json.loads((tmp_path / "model.json").read_text())
    assert (facts["tokens"], facts["tokenizer"]) == (TOKENS, backbone.facts.tokenizer)
    module = Predictor(model=model, reading=site.config.data, backbone=backbone).module()
    ids = backbone.front().before(site.train.x[:5]).long()
    assert ids.shape == (5, TOKENS)
    torch.testing.assert_close(program(ids), module(site.train.x[:5]), rtol=1e-4, atol=1e-4)
    assert len(model.weights) < HIDDEN * 300


def test_texts_and_a_backbone_of_them_go_together(conducted, tmp_path):
    folder, federation = conducted
    file = federation.root / "sites" / "site-002" / "site.toml"
    text = file.read_text()
    other = file.with_name("other.toml")
    without = [line for line in text.splitlines() if not line.startswith(("file =", "network ="))]
    other.write_text("\n".join(without))
    (problem,) = check(other, connect=False).problems
    assert "the site's inputs are texts, which only a backbone takes" in problem
    bare = text.replace('text = "words"\n', "").replace("columns = []", 'columns = ["words"]')
    other.write_text(bare)
    assert any("no column of texts is named" in one for one in check(other, connect=False).problems)
    with pytest.raises(UsageError, match="only a backbone takes"):
        prepared(folder, "target.name=mlp")
