from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from clients.site.exported_program import export_model
from clients.site.model_store import (
    Model,
    ModelFacts,
    ModelStart,
    load_model,
    load_start,
    save_model,
)
from f2l_fed.core.random_streams import generator_for
from f2l_fed.data.readers.feature_encoding import EncodedColumn, FeatureEncoding
from f2l_fed.errors import DataError, UsageError
from f2l_fed.local_training.config import Recipe
from f2l_fed.targets import build_target

SHAPE = (1, 8, 8)


def model(round: int = 1) -> Model:
    target = build_target("cnn-xs", SHAPE, 3)
    facts = ModelFacts(
        site="north",
        time="2026-01-02T12:00:00+00:00",
        target="cnn-xs",
        classes=3,
        labels=("ok", "scratch", "dent"),
        input_shape=SHAPE,
        lineage="test/0",
        round=round,
        release="00001",
        chosen="prior",
        layout=target.layout.digest,
        steps=5,
        accuracy_before=0.25,
        accuracy=0.75,
    )
    weights = target.initialise(generator_for("model", round))
    return Model(weights=weights, layout=target.layout, facts=facts)


def test_a_saved_network_is_read_back(tmp_path):
    assert load_model(tmp_path) is None
    save_model(tmp_path, model(1))
    save_model(tmp_path, model(2))
    read = load_model(tmp_path)
    assert read is not None
    assert read.facts == model(2).facts
    assert torch.equal(read.weights, model(2).weights)
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "model.json"}


def test_the_file_names_the_parameters_as_the_network_does(tmp_path):
    save_model(tmp_path, model())
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert {*file.keys()} == {*model().layout.names}
        assert json.loads(file.metadata()["f2l_fed"])["labels"] == ["ok", "scratch", "dent"]


def test_a_saved_start_is_read_back_with_its_recipe(tmp_path):
    assert load_start(tmp_path) is None
    start = ModelStart(model=model(), recipe=Recipe(steps=7, lr=0.1, batch=10))
    save_model(tmp_path, model(2), start)
    read = load_start(tmp_path)
    assert read is not None
    assert (read.recipe, read.model.facts) == (start.recipe, start.model.facts)
    assert torch.equal(read.model.weights, start.model.weights)
    made = load_model(tmp_path)
    assert made is not None
    assert torch.equal(made.weights, model(2).weights)


@pytest.mark.parametrize("content", [b"", b"nonsense" * 9])
@pytest.mark.parametrize(
    ("name", "load"), [("model.safetensors", load_model), ("start.safetensors", load_start)]
)
def test_a_damaged_network_is_reported(tmp_path, content, name, load):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="the site's network can't be read"):
        load(tmp_path)


def test_a_start_without_a_recipe_is_reported(tmp_path):
    save_model(tmp_path, model())
    (tmp_path / "model.safetensors").rename(tmp_path / "start.safetensors")
    with pytest.raises(DataError, match="the site's network can't be read"):
        load_start(tmp_path)


def test_the_exported_program_predicts_like_the_network(tmp_path: Path):
    export_model(model(), tmp_path / "out")
    program = torch.export.load(tmp_path / "out/model.pt2").module()
    x = torch.rand(7, *SHAPE, generator=torch.Generator().manual_seed(0))
    expected = build_target("cnn-xs", SHAPE, 3).logits(model().weights, x)
    torch.testing.assert_close(program(x), expected)
    read = load_model(tmp_path / "out")
    assert read is not None
    assert dataclasses.replace(read.facts) == model().facts
    with pytest.raises(UsageError, match="the file exists already"):
        export_model(model(), tmp_path / "out")


def test_the_exported_program_keeps_the_digits_of_large_numbers(tmp_path: Path):
    scale = EncodedColumn(name="stamp", mean=1.76e9, spread=30.0)
    encoding = FeatureEncoding(columns=(scale, EncodedColumn(name="b")))
    target = build_target("mlp", (2,), 3)
    facts = dataclasses.replace(
        model().facts, target="mlp", input_shape=(2,), encoding=encoding.text
    )
    weights = target.initialise(generator_for("model"))
    made = Model(weights=weights, layout=target.layout, facts=facts)
    export_model(made, tmp_path / "out")
    program = torch.export.load(tmp_path / "out/model.pt2").module()
    x = torch.rand(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    own = x * torch.tensor([100.0, 1.0]) + torch.tensor([1.76e9, 0.0], dtype=torch.float64)
    scaled = torch.stack([(own[:, 0] - 1.76e9) / 30, own[:, 1]], 1).float()
    torch.testing.assert_close(program(own), target.logits(weights, scaled))
    assert program(own.float()).shape == (50, 3)
