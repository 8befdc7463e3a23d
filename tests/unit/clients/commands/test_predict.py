"""From a site's network to predictions, with the preprocessing that it was made with."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from clients.cli import site as entry_point
from clients.site.model_facts import ModelFacts
from clients.site.model_store import Model, load_model, save_model
from clients.site.prediction import (
    Prediction,
    Predictor,
    site_threshold,
    threshold_for,
    write_predictions,
)
from clients.site.site import Site, open_site
from f2l_fed.core.random_streams import generator_for
from f2l_fed.data.readers.config import ReadingConfig
from f2l_fed.data.readers.findings import Findings
from f2l_fed.data.readers.reading import read_raw
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.finetune import finetune, loss_and_accuracy
from f2l_fed.targets import build_target
from tests.support.checked_site import site_on, write_picture


class Ended(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def f2l_site(monkeypatch, capsys):
    def call(*arguments: str | Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["f2l-site", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            entry_point()
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    return call


def trained(site: Site, name: str) -> Model:
    """A network of the site, trained and kept in its state folder as a round does."""
    shape, classes = tuple(site.train.x.shape[1:]), int(site.train.y.max()) + 1
    target = build_target(name, shape, classes)
    start = target.initialise(generator_for("start"))
    recipe = Recipe(steps=200, lr=0.05, momentum=0.9)
    weights = finetune(target, start, site.train.x, site.train.y, recipe, generator_for("steps"))
    facts = ModelFacts(
        site=site.config.name,
        time="2026-01-02T12:00:00+00:00",
        target=name,
        classes=classes,
        labels=site.labels,
        input_shape=shape,
        lineage="test/0",
        round=1,
        release="",
        chosen="anchor",
        layout=target.layout.digest,
        steps=200,
        accuracy_before=0.0,
        accuracy=loss_and_accuracy(target, weights, site.validation.x, site.validation.y)[1],
        encoding=site.encoding.text,
    )
    save_model(site.state, model := Model(weights=weights, layout=target.layout, facts=facts))
    return model


def table(path: Path, rows: int, *, seed: int, gap: int = -1, labelled: bool = True) -> Path:
    rng = np.random.default_rng(seed)
    lines = ["Farbe;Maß;label" if labelled else "Maß;Farbe;weiter"]
    for n in range(rows):
        kind = n % 2
        size = "" if n == gap else f"{rng.normal(2 * kind, 0.2):.3f}".replace(".", ",")
        colour = ["rot", "blau"][(n // 2) % 2]
        cells = (colour, size, ["gut", "Riß"][kind]) if labelled else (size, colour, "x")
        lines.append(";".join(cells))
    path.write_bytes("\r\n".join([*lines, ""]).encode("cp1252"))
    return path


@pytest.fixture
def on_table(tmp_path):
    site = site_on(table(tmp_path / "t.csv", 80, seed=0, gap=4))
    trained(open_site(site), "mlp")
    return site


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_predictions_for_a_table_without_labels_in_another_order(tmp_path, on_table, f2l_site):
    new = table(tmp_path / "new.csv", 40, seed=1, gap=7, labelled=False)
    done = f2l_site("predict", on_table, "--input", new, "--output", tmp_path / "out.csv")
    assert (done.returncode, done.stderr) == (0, "")
    assert "40 predictions are in" in done.stdout
    assert "remark: The text is no UTF-8" in done.stdout
    rows = read(tmp_path / "out.csv")
    assert [row["source"] for row in rows] == [f"new.csv:{n + 2}" for n in range(40)]
    right = [row["label"] == ["gut", "Riß"][n % 2] for n, row in enumerate(rows) if n != 7]
    assert sum(right) >= 38
    assert {row["abstain"] for row in rows} <= {"yes", "no"}


@pytest.mark.parametrize("scale", ["", "standard"])
def test_predictions_agree_with_the_exported_program(tmp_path, f2l_site, scale):
    data = table(tmp_path / "t.csv", 80, seed=0, gap=4)
    columns = torch.from_numpy(read_raw(data, ReadingConfig()).inputs)
    assert columns.isnan().any()
    on_table = site_on(data, f'scale = "{scale}"')
    trained(open_site(on_table), "mlp")
    assert f2l_site("model", "export", on_table, tmp_path / "export").returncode == 0
    program = torch.export.load(tmp_path / "export/model.pt2").module()
    probabilities = program(columns).softmax(1).max(dim=1).values.tolist()
    f2l_site("predict", on_table, "--input", tmp_path / "t.csv", "--output", tmp_path / "o.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [row["probability"] for row in rows] == pytest.approx(probabilities, abs=1e-5)
    assert len(rows) == 80


def test_it_abstains_below_the_threshold(tmp_path, on_table, f2l_site):
    new = table(tmp_path / "new.csv", 40, seed=1)
    arguments = ("predict", on_table, "--input", new, "--output", tmp_path / "out.csv")
    f2l_site(*arguments, "--threshold", "0.99")
    rows = read(tmp_path / "out.csv")
    assert all((float(row["probability"]) < 0.99) == (row["abstain"] == "yes") for row in rows)
    again = f2l_site(*arguments)
    assert again.returncode == 2
    assert "exists already" in again.stderr
    assert f2l_site(*arguments, "--force", "--goal", "0.5").returncode == 0


@pytest.mark.parametrize(
    ("probabilities", "y", "goal", "threshold"),
    [
        ([0.9, 0.8, 0.7], [0, 0, 0], 0.95, 0.0),
        ([0.9, 0.8, 0.7], [0, 0, 1], 0.95, 0.8),
        ([0.9, 0.8, 0.7], [1, 1, 1], 0.95, math.inf),
        ([1.0, 1.0, 1.0], [0, 0, 1], 0.95, math.inf),
        ([1.0, 0.8, 0.8, 0.7], [0, 0, 1, 1], 0.95, 1.0),
        ([0.9, 0.8, 0.8, 0.8], [0, 0, 0, 1], 0.95, 0.9),
        ([0.9, 0.8, 0.7, 0.6], [0, 1, 0, 1], 0.6, 0.7),
    ],
)
def test_the_threshold_keeps_as_many_as_are_right_often_enough(probabilities, y, goal, threshold):
    p = torch.tensor([[value, 1 - value] for value in probabilities])
    assert threshold_for(p, torch.tensor(y), goal) == pytest.approx(threshold)


def test_surplus_outputs_never_share_a_name_with_a_label(tmp_path):
    rows = "".join(f"{3 * (n % 3)},{n % 3 + 1}\n" for n in range(90))
    (tmp_path / "t.csv").write_text(f"a,label\n{rows}")
    site = site_on(tmp_path / "t.csv")
    model = trained(open_site(site), "mlp")
    target = build_target("mlp", (1,), 10)
    weights = finetune(
        target,
        target.initialise(generator_for("start")),
        open_site(site).train.x,
        open_site(site).train.y,
        Recipe(steps=200, lr=0.05, momentum=0.9),
        generator_for("steps"),
    )
    facts = replace(model.facts, classes=10, layout=target.layout.digest)
    assert len(set(facts.output_names)) == 10
    assert facts.output_names[:3] == ("1", "2", "3")
    wide = Predictor(
        model=Model(weights=weights, layout=target.layout, facts=facts), reading=ReadingConfig()
    )
    assert site_threshold(open_site(site), wide, 0.95) == 0


def test_a_saturated_prediction_abstains_where_no_threshold_suffices(tmp_path, on_table, f2l_site):
    predictor = Predictor(
        model=load_model(open_site(on_table).state), reading=open_site(on_table).config.data
    )
    bold = replace(predictor.model, weights=1000 * predictor.model.weights)
    new = table(tmp_path / "new.csv", 20, seed=1, labelled=False)
    never = threshold_for(torch.tensor([[1.0, 0.0]]), torch.tensor([1]), 0.95)
    _, batches = replace(predictor, model=bold).predict(new, Findings(""), threshold=never)
    (batch,) = batches
    assert max(one.probability for one in batch) == 1
    assert all(one.abstain for one in batch)


def test_a_network_without_an_encoding_takes_no_table(tmp_path, on_table, f2l_site):
    state = open_site(on_table).state
    model = load_model(state)
    save_model(state, replace(model, facts=replace(model.facts, encoding="")))
    new = table(tmp_path / "new.csv", 20, seed=1)
    for arguments in (
        ("predict", on_table, "--input", new, "--output", tmp_path / "o.csv", "--threshold", "0"),
        ("evaluate", on_table, "--data", new),
    ):
        done = f2l_site(*arguments)
        assert done.returncode == 2
        assert "Make it again: f2l-site generate." in done.stderr


def test_inputs_have_no_labels_whatever_their_columns_are_called(tmp_path, f2l_site):
    rows = "".join(f"{n},{n % 2},{'xy'[n % 2]}\n" for n in range(40))
    (tmp_path / "t.csv").write_text(f"a,y,label\n{rows}")
    site = site_on(tmp_path / "t.csv")
    trained(open_site(site), "mlp")
    (tmp_path / "new.csv").write_text("a,y\n1,0\n2,1\n")
    output = tmp_path / "out.csv"
    done = f2l_site("predict", site, "--input", tmp_path / "new.csv", "--output", output)
    assert (done.returncode, done.stderr, len(read(output))) == (0, "", 2)


@pytest.mark.parametrize("gaps", ["median", "leave-out", "refuse"])
def test_gaps_of_inputs_are_treated_as_the_settings_say(tmp_path, f2l_site, gaps):
    site = site_on(table(tmp_path / "t.csv", 40, seed=0), f'gaps = "{gaps}"')
    trained(open_site(site), "mlp")
    new = table(tmp_path / "new.csv", 10, seed=1, gap=4)
    done = f2l_site("predict", site, "--input", new, "--output", tmp_path / "out.csv")
    if gaps == "refuse":
        assert done.returncode == 2
        assert "'Maß' (new.csv:6)" in done.stderr
        return
    assert len(read(tmp_path / "out.csv")) == (10 if gaps == "median" else 9)
    words = "In column 'Maß' 1 missing value is filled in" if gaps == "median" else "left out"
    assert words in done.stdout


def test_empty_rows_of_inputs_are_told_and_units_are_compared(tmp_path, f2l_site):
    rows = "".join(f"{n} mm,{n % 5},{'xy'[n % 2]}\n" for n in range(40))
    (tmp_path / "t.csv").write_text(f"a,b,label\n{rows}")
    site = site_on(tmp_path / "t.csv")
    trained(open_site(site), "mlp")
    new = tmp_path / "new.csv"
    arguments = ("predict", site, "--input", new, "--output", tmp_path / "out.csv", "--force")
    new.write_text("a,b\n1 mm,1\n\n,\n2 mm,2\n")
    assert "remark: 2 empty rows are left out" in f2l_site(*arguments).stdout
    assert [row["source"] for row in read(tmp_path / "out.csv")] == ["new.csv:2", "new.csv:5"]
    new.write_text("a,b\n1 mm,\n2 mm,\n")
    (told,) = (line for line in f2l_site(*arguments).stdout.splitlines() if "'b'" in line)
    assert told == "remark: Column 'b' is empty, and all of its values count as missing."
    new.write_text("a,b\n1,1\n")
    assert "'a' are taken for 'mm'" in f2l_site(*arguments).stdout
    new.write_text("a,b\n1 cm,1\n")
    done = f2l_site(*arguments)
    assert done.returncode == 2
    assert "another unit than at training: expected 'mm', got 'cm'" in done.stderr


def test_no_cell_of_the_output_is_a_formula():
    names = ("=1+1", "+x", "-x", "@x", "-1", "+2.5", "ok")
    batch = [Prediction(source=name, label=name, probability=1.0, abstain=False) for name in names]
    file = io.StringIO()
    write_predictions(batch, file, lines=False, first=True)
    rows = list(csv.DictReader(io.StringIO(file.getvalue())))
    expected = ["'=1+1", "'+x", "'-x", "'@x", "-1", "+2.5", "ok"]
    assert [row["source"] for row in rows] == [row["label"] for row in rows] == expected


def test_bad_rows_are_told_as_in_training(tmp_path, on_table, f2l_site):
    new = tmp_path / "new.csv"
    new.write_text("Farbe;Maß\nrot;1,5\ngrün;zwei\nblau;drei\nblau;2,5\n")
    done = f2l_site("predict", on_table, "--input", new, "--output", tmp_path / "out.csv")
    assert done.returncode == 2
    assert "'zwei' (new.csv:3), 'drei' (new.csv:4)" in done.stderr
    new.write_text("Farbe\nrot\n")
    done = f2l_site("predict", on_table, "--input", new, "--output", tmp_path / "out.csv")
    assert "columns are missing: expected all columns of the training examples" in done.stderr
    assert not (tmp_path / "out.csv").exists()
    new.write_text("Farbe;Maß\ngrün;1,5\nrot;1,5\n")
    done = f2l_site("predict", on_table, "--input", new, "--output", tmp_path / "out.csv")
    assert "1 value of column 'Farbe' did not occur in training" in done.stdout


def test_evaluate_gives_accuracy_confusion_and_calibration(tmp_path, on_table, f2l_site):
    new = table(tmp_path / "new.csv", 50, seed=2)
    done = f2l_site("evaluate", on_table, "--data", new, "--picture", tmp_path / "c.svg")
    assert (done.returncode, done.stderr) == (0, "")
    assert "95% interval" in done.stdout
    assert (tmp_path / "c.svg").read_text().startswith("<svg")
    values = json.loads(f2l_site("evaluate", on_table, "--data", new, "--json").stdout)
    confusion = np.array(values["confusion"])
    assert values["labels"] == ["Riß", "gut"]
    assert confusion.sum(1).tolist() == [25, 25]
    assert values["accuracy"] == np.trace(confusion) / 50
    low, high = values["interval"]
    assert low < values["accuracy"] <= high <= 1
    assert sum(part["predictions"] for part in values["calibration"]) == 50
    new.write_text("Farbe;Maß;label\nrot;1,5;Delle\n")
    done = f2l_site("evaluate", on_table, "--data", new)
    assert done.returncode == 2
    assert "'Delle' (new.csv:2)" in done.stderr


def test_predictions_for_a_folder_of_photos_leave_out_what_can_not_be_read(tmp_path, f2l_site):
    for label, value in (("dark", 40), ("light", 200)):
        for n in range(12):
            pixels = np.random.default_rng(n).integers(0, 40, (16, 16)).astype(np.uint8) + value
            (tmp_path / "d" / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "d" / label / f"{n}.png")
    site = site_on(tmp_path / "d")
    trained(open_site(site), "cnn-xs")
    (tmp_path / "new/sub").mkdir(parents=True)
    Image.new("RGB", (64, 32), (230, 230, 230)).save(tmp_path / "new/sub/light.jpg")
    Image.new("L", (16, 16), 30).save(tmp_path / "new/dark.png")
    (tmp_path / "new/bad.png").write_bytes(b"\x89PNG\r\n")
    (tmp_path / "new/notes.txt").write_text("x")
    done = f2l_site("predict", site, "--input", tmp_path / "new", "--output", tmp_path / "out.csv")
    assert (done.returncode, done.stderr) == (0, "")
    rows = {row["source"]: row["label"] for row in read(tmp_path / "out.csv")}
    assert rows == {"dark.png": "dark", "sub/light.jpg": "light"}
    assert "Left out" in done.stdout
    assert "bad.png" in done.stdout
    one = tmp_path / "new/dark.png"
    f2l_site("predict", site, "--input", one, "--output", tmp_path / "one.csv")
    assert [row["source"] for row in read(tmp_path / "one.csv")] == ["dark.png"]
    write_picture(tmp_path / "more/dark/1.png", mode="RGB", size=(40, 40))
    Image.new("L", (9, 9), 250).save(tmp_path / "more/dark/2.png")
    values = json.loads(f2l_site("evaluate", site, "--data", tmp_path / "more", "--json").stdout)
    assert values["examples"] == 2


def test_only_the_test_folder_counts_where_folders_name_parts(tmp_path, f2l_site):
    for part, count in (("train", 6), ("val", 2), ("test", 3)):
        for n in range(count):
            for label, value in (("dark", 40), ("light", 200)):
                path = tmp_path / "d" / part / label / f"{n}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (8, 8), value + n).save(path)
    site = site_on(tmp_path / "d")
    trained(open_site(site), "cnn-xs")
    values = json.loads(f2l_site("evaluate", site, "--data", tmp_path / "d", "--json").stdout)
    assert values["examples"] == 6
    assert any("folder for test" in remark for remark in values["remarks"])
    shutil.copytree(tmp_path / "d/train", tmp_path / "more")
    further = open_site(site_on(tmp_path / "more", top=f'validation = "{tmp_path / "d"}"'))
    assert len(further.validation.y) == 4
    shutil.rmtree(tmp_path / "d/test")
    done = f2l_site("evaluate", site, "--data", tmp_path / "d")
    assert done.returncode == 2
    assert "none for test" in done.stderr


def test_a_network_of_a_version_without_encodings_still_predicts(tmp_path, f2l_site):
    x = np.random.default_rng(0).random((40, 3))
    np.savez(tmp_path / "d.npz", x=x, y=(x[:, 0] > 0.5).astype(int))
    site = site_on(tmp_path / "d.npz")
    opened = open_site(site)
    model = trained(opened, "mlp")
    save_model(opened.state, replace(model, facts=replace(model.facts, encoding="")))
    np.savez(tmp_path / "new.npz", x=x)
    arguments = ("predict", site, "--input", tmp_path / "new.npz")
    done = f2l_site(*arguments, "--output", tmp_path / "out.csv")
    assert "no longer those of the network" in done.stderr
    done = f2l_site(*arguments, "--output", tmp_path / "out.csv", "--threshold", "0")
    assert done.returncode == 0
    labels = [row["label"] for row in read(tmp_path / "out.csv")]
    assert (
        np.mean([label == str(int(v > 0.5)) for label, v in zip(labels, x[:, 0], strict=True)])
        > 0.8
    )


def test_without_a_network_the_remedy_is_told(tmp_path, f2l_site):
    site = site_on(table(tmp_path / "t.csv", 20, seed=0))
    done = f2l_site("predict", site, "--input", tmp_path / "t.csv", "--output", tmp_path / "o.csv")
    assert done.returncode == 2
    assert "f2l-site generate" in done.stderr


def test_a_site_learns_from_numbers_of_any_scale_and_predicts_with_the_same(tmp_path, f2l_site):
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    x = np.stack([1e6 + 50 * y + rng.normal(0, 9, 120), 1e30 * rng.random(120), 0 * y + 7.0], 1)
    np.savez(tmp_path / "d.npz", x=x, y=y)
    site = site_on(tmp_path / "d.npz", 'scale = "standard"')
    opened = open_site(site)
    assert opened.train.x[:, 2].unique().tolist() == [0]
    assert opened.train.x.std(0)[:2].tolist() == pytest.approx([1, 1], abs=0.01)
    assert trained(opened, "mlp").facts.accuracy > 0.95
    np.savez(tmp_path / "new.npz", x=x[:20], y=y[:20])
    f2l_site("predict", site, "--input", tmp_path / "new.npz", "--output", tmp_path / "out.csv")
    labels = [int(row["label"]) for row in read(tmp_path / "out.csv")]
    assert np.mean(np.array(labels) == y[:20]) > 0.9
