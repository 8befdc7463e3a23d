"""One data set through a simulation and through a real site: the same tensors and predictions."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clients.onboarding.site_template import create_site
from clients.site.config import read_config
from clients.site.exported_program import export_model
from clients.site.policy import PolicyConfig
from clients.site.prediction import Predictor
from clients.site.site import Site, open_site
from f2l_fed.config import load_simulation_config
from f2l_fed.data import Partition, SiteData
from f2l_fed.data.readers.findings import Findings
from f2l_fed.data.scenarios.partition import LIKE_SITES
from f2l_fed.errors import DataError
from f2l_fed.targets import build_target
from server.simulation.setup import Simulation, prepare
from tests.support.checked_site import write_picture
from tests.support.site_models import network_of

GROUP = 'group = "part"'
NAMES = ("north", "south", "west")
LABELS = ("dent", "ok", "scratch")


def table(path: Path, seed: int, rows: int = 45) -> Path:
    """Gaps, categories of which one site lacks one, a constant, and numbers far from 0."""
    rng = np.random.default_rng(seed)
    lines = ["stamp;length;colour;constant;machine id;result"]
    for n in range(rows):
        length = "" if rng.random() < 0.2 and seed else f"{rng.normal(1e6, 10):.3f}"
        colour = ["red", "blue", "", "Green"][int(rng.integers(4 if seed else 3))]
        stamp = 1_760_000_000 + int(rng.integers(10_000))
        lines.append(f"{stamp};{length};{colour};7,5;{rng.integers(40)};{LABELS[n % 3]}")
    path.write_text("\n".join(lines).replace(".", ","))
    return path


def pictures(folder: Path, seed: int) -> Path:
    for number, label in enumerate(LABELS):
        for n in range(12):
            picture = folder / label / f"{n:02d}.png"
            write_picture(picture, size=(9, 7), seed=1000 * seed + 100 * number + n)
    return folder


def simulated(tmp_path: Path, data: dict[str, Path] | Path, *settings: str) -> Partition:
    config, reading, _ = load_simulation_config(None, settings)
    own = tuple(data.items()) if isinstance(data, dict) else ()
    plan = Simulation(
        data=() if isinstance(data, dict) else (str(data),),
        own_sites=own,
        scenario="natural" if own else "dirichlet",
        sites=9,
        held_out=1,
        rounds=1,
        out=tmp_path / "out",
        config=config,
        reading=reading,
    )
    return prepare(plan, force=False)[1]


def settled(tmp_path: Path, name: str, data: Path, like: Path) -> Site:
    """A real site's folder, with what its federation has settled for all sites: the section
    [data] that simulated sites have too."""
    file = create_site(tmp_path / f"real-{name}", name, data, shared_labels=True)
    text = file.read_text().replace("labels = []", f"labels = {list(LABELS)}")
    text = text.replace('label = ""', 'label = "result"') if data.is_file() else text
    for line in like.read_text().partition("[data]")[2].partition("[policy]")[0].splitlines():
        key = line.partition(" = ")[0]
        if key.startswith("categories"):
            text = text.replace("\n[data]\n", f"\n[data]\n{line}\n")
        elif key in ("columns", "indicators", "image_scale", "gaps") or line == GROUP:
            text = re.sub(rf"^{key} = .*$", line, text, flags=re.MULTILINE)
    file.write_text(text)
    return open_site(file)


def assert_same(divided: SiteData, site: Site) -> None:
    """The server's tensors of a simulated site, and those of a folder."""
    assert divided.encoding == replace(site.encoding, columns=divided.encoding.columns)
    for one, other in zip(divided.encoding.columns, site.encoding.columns, strict=True):
        assert one == other
    assert torch.equal(torch.from_numpy(divided.x_train), site.train.x)
    assert torch.equal(torch.from_numpy(divided.y_train), site.train.y)
    assert torch.equal(torch.from_numpy(divided.x_test), site.validation.x)
    assert torch.equal(torch.from_numpy(divided.y_test), site.validation.y)


def probabilities(predictor: Predictor, path: Path) -> dict[str, tuple[str, float]]:
    findings = Findings("")
    _, batches = predictor.predict(path, findings, threshold=0.0)
    return {one.source: (one.label, one.probability) for batch in batches for one in batch}


@pytest.mark.parametrize("gaps", ["indicator", "median"])
def test_a_table_with_gaps_and_categories(tmp_path, gaps):
    data = {name: table(tmp_path / f"{name}.csv", seed) for seed, name in enumerate(NAMES)}
    settings = ("data.label=result", f"data.gaps={gaps}", "split.held_out_shots=8")
    divided = simulated(tmp_path, data, *settings)
    everywhere = [*divided.sites, *(divided.held_out["seen"] or ())]
    features = {one.encoding.features for one in everywhere}
    assert len(features) == 1
    assert ("length is missing" in features.pop()) == (gaps == "indicator")
    for number, one in enumerate(divided.sites):
        like = tmp_path / f"out/sites/site-{number:03d}/site.toml"
        assert_same(one, open_site(like))
        real = settled(tmp_path, one.name, data[one.name], like)
        assert_same(one, real)
        assert real.encoding.columns[1].mean == pytest.approx(1e6, rel=1e-4)


def test_a_table_that_is_divided_among_sites_of_which_some_lack_gaps_or_texts(tmp_path):
    path = table(tmp_path / "t.csv", 1, rows=400)
    divided = simulated(tmp_path, path, "data.label=result", "split.dirichlet_alpha=1")
    features = {one.encoding.features for one in divided.sites}
    assert len(features) == 1
    assert {"machine id", "length is missing", "colour = Green"} <= set(features.pop())
    for number, one in enumerate(divided.sites):
        assert_same(one, open_site(tmp_path / f"out/sites/site-{number:03d}/site.toml"))
    means = {one.encoding.columns[1].mean for one in divided.sites}
    assert len(means) == len(divided.sites)


def test_groups_are_kept_together_as_at_a_real_site(tmp_path):
    data = {}
    for seed, name in enumerate(NAMES):
        rows = table(tmp_path / f"{name}.csv", seed).read_text().splitlines()
        rows = [f"{row};{n // 3 % 5}{row[-1]}" for n, row in enumerate(rows[1:])]
        text = "\n".join(["stamp;length;colour;constant;machine id;result;part", *rows])
        data[name] = tmp_path / f"{name}.csv"
        data[name].write_text(text)
    settings = ("data.label=result", "data.group=part", "split.held_out_shots=8")
    divided = simulated(tmp_path, data, *settings)
    for number, one in enumerate(divided.sites):
        like = tmp_path / f"out/sites/site-{number:03d}/site.toml"
        here = open_site(like)
        assert here.config.data.group == "group"
        assert_same(one, here)
        like.write_text(like.read_text().replace('group = "group"', GROUP))
        assert_same(one, settled(tmp_path, one.name, data[one.name], like))
    (new,) = divided.held_out["seen"] or ()
    assert new.own.groups is not None
    assert len(new.own.y) + len(new.y_test) == 45
    assert len(new.y_test) % 3 == 0
    shutil.rmtree(tmp_path / "out")
    (one, *_) = simulated(tmp_path, data, *settings, "split.validation_fraction=0").sites
    assert_same(one, open_site(tmp_path / "out/sites/site-000/site.toml"))


def test_predictions_for_a_table_are_those_of_the_network_and_of_its_program(tmp_path):
    data = {name: table(tmp_path / f"{name}.csv", seed) for seed, name in enumerate(NAMES)}
    divided = simulated(tmp_path, data, "data.label=result", "split.held_out_shots=8")
    one = divided.sites[0]
    site = open_site(tmp_path / "out/sites/site-000/site.toml")
    model = network_of(site, LABELS, "both ways")
    predictor = Predictor(model=model, reading=site.config.data)
    told = probabilities(predictor, data[one.name])
    export_model(model, tmp_path / "model")
    program = torch.export.load(tmp_path / "model/model.pt2").module()
    logits = program(torch.from_numpy(one.own.x)).detach()
    # Rows of the file in its order, below its header.
    found = [told[f"{one.name}.csv:{n + 2}"] for n in range(len(one.own.x))]
    chosen = logits.softmax(1).max(1)
    assert [label for label, _ in found] == [LABELS[k] for k in chosen.indices.tolist()]
    assert [p for _, p in found] == pytest.approx(chosen.values.tolist(), abs=1e-5)
    assert len({label for label, _ in found}) > 1
    seen = build_target("mlp", model.facts.input_shape, 3).logits(model.weights, site.train.x)
    # The examples to learn from, in the order of the file.
    assert (seen.argmax(1).bincount(minlength=3) <= logits.argmax(1).bincount(minlength=3)).all()
    distance = torch.cdist(seen, logits, compute_mode="donot_use_mm_for_euclid_dist")
    nearest = distance.min(1)
    assert float(nearest.values.max()) < 1e-5
    assert (nearest.indices.diff() > 0).all()


@pytest.mark.parametrize("scale", ["", "standard"])
def test_images_and_their_predictions(tmp_path, scale):
    data = {name: pictures(tmp_path / name, seed) for seed, name in enumerate(NAMES)}
    divided = simulated(tmp_path, data, f"data.image_scale={scale}", "split.held_out_shots=8")
    one = divided.sites[0]
    like = tmp_path / "out/sites/site-000/site.toml"
    assert_same(one, open_site(like))
    real = settled(tmp_path, one.name, data[one.name], like)
    assert_same(one, real)
    assert bool(real.encoding.channels) == bool(scale)
    if scale:
        assert float(real.train.x.mean()) == pytest.approx(0, abs=1e-5)
        assert float(real.train.x.std(correction=0)) == pytest.approx(1, abs=1e-5)
    model = network_of(real, LABELS, "both ways")
    told = probabilities(Predictor(model=model, reading=real.config.data), data[one.name])
    export_model(model, tmp_path / "model")
    program = torch.export.load(tmp_path / "model/model.pt2").module()
    chosen = program(torch.from_numpy(one.own.x)).softmax(1).max(1)
    found = [told[f"{label}/{n:02d}.png"] for label in LABELS for n in range(12)]
    assert [label for label, _ in found] == [LABELS[k] for k in chosen.indices.tolist()]
    assert [p for _, p in found] == pytest.approx(chosen.values.tolist(), abs=1e-5)


def test_simulated_sites_have_the_defaults_of_real_ones(tmp_path):
    data = {name: table(tmp_path / f"{name}.csv", seed) for seed, name in enumerate(NAMES)}
    simulated(tmp_path, data, "data.label=result")
    config = read_config(tmp_path / "out/sites/site-000/site.toml")
    real = read_config(create_site(tmp_path / "real", "north", data["north"]))
    assert config.validation == real.validation == ""
    assert config.validation_fraction == real.validation_fraction
    assert config.data.scale == real.data.scale == LIKE_SITES.scale
    assert config.data.gaps == real.data.gaps
    many = 1_000_000
    assert config.policy == replace(
        PolicyConfig(),
        targets="mlp",
        shared_labels=True,
        rounds_per_day=many,
        answers_per_day=many,
    )


def test_sites_that_a_deployment_would_refuse_are_left_out_or_told(tmp_path):
    data = {name: table(tmp_path / f"{name}.csv", seed) for seed, name in enumerate(NAMES)}
    small = data["north"].read_text().splitlines()[:10]
    more = tmp_path / "small.csv"
    more.write_text("\n".join(small))
    divided = simulated(tmp_path, {**data, "small": more}, "data.label=result")
    assert "small" not in {one.name for one in divided.sites}
    shutil.rmtree(tmp_path / "out")
    config, reading, _ = load_simulation_config(None, ["split.held_out_shots=1", "split.shots=20"])
    plan = Simulation(
        data=("digits",),
        scenario="few-shot",
        sites=3,
        held_out=2,
        rounds=1,
        out=tmp_path / "out",
        config=config,
        reading=reading,
    )
    with pytest.raises(DataError, match=r"Raise split\.held_out_shots to 3"):
        prepare(plan, force=False)
    _, divided = prepare(
        replace(plan, config=replace(config, split=replace(config.split, held_out_shots=5))),
        force=False,
    )
    assert {len(one.y_train) for one in divided.held_out["seen"] or ()} == {20}
    assert {len(one.y_train) for one in divided.sites} == {80}
    assert {len(one.y_test) for one in divided.sites} == {20}
