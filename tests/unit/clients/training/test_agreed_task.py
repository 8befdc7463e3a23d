"""The comparison of a site with the federation's task, before anything is sent."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from clients.onboarding.site_template import create_site
from clients.site.site import Site
from clients.site.site_folder import SiteFolder
from clients.training.agreed_task import differences
from f2l_fed.data.readers.agreed_settings import LONGEST_FEATURE, MOST_FEATURES
from f2l_fed.data.readers.labels import LONGEST_LABEL, MOST_LABELS
from f2l_fed.errors import ConfigError, WireError
from f2l_fed.local_training.config import Recipe
from f2l_fed.targets import build_target
from f2l_fed.wire.agreement import TASK, Agreement
from f2l_fed.wire.enrolment import LARGEST_ANSWER_BYTES
from tests.support.sites import body_frame, digits_site, frame

WIDER = build_target("mlp", (1, 9, 9), 3).layout.digest
ONE = Recipe(steps=2, batch=10)


def agreed(**changes: object) -> Agreement:
    plain = Agreement(frame=frame(), first=ONE, later=ONE, version="0.1")
    return dataclasses.replace(plain, **changes)


def found(tmp_path, agreement: Agreement, more: str = "", **site: int) -> list[str]:
    path = digits_site(tmp_path, more=more, **site)
    return differences(Site.load(SiteFolder.read(path)), agreement)


@pytest.mark.parametrize(
    "agreement",
    [
        agreed(),
        agreed(frame=body_frame()),
        agreed(frame=dataclasses.replace(frame(), shared_labels=True), labels=("a", "b,c", "ä")),
    ],
)
def test_it_comes_through_an_answer(agreement):
    assert Agreement.from_json(agreement.to_json()) == agreement
    assert Agreement.from_json({"labels": "own"}) is None
    with pytest.raises(WireError):
        Agreement.from_json({TASK: {"version": 4}})
    later = agreement.to_json()[TASK] | {"version": 5, "episodes": "another kind"}
    with pytest.raises(ConfigError, match="too old for this federation"):
        Agreement.from_json({TASK: later})


def test_the_most_and_longest_names_fit_into_an_answer():
    names = tuple("\U0001f41d" * (LONGEST_LABEL - 4) + f"{n:04}" for n in range(MOST_LABELS))
    shared = dataclasses.replace(frame(), shared_labels=True, classes=MOST_LABELS)
    features = tuple("\U0001f41d" * (LONGEST_FEATURE - 4) + f"{n:04}" for n in range(MOST_FEATURES))
    answer = agreed(frame=shared, labels=names, features=features).to_json()
    assert len(json.dumps(answer)) < LARGEST_ANSWER_BYTES - 2**14
    told = Agreement.from_json(answer)
    assert (told.labels, told.features) == (names, features)


@pytest.mark.parametrize("task", [agreed(), agreed(frame=body_frame())])
def test_a_site_that_fits_has_no_differences(tmp_path, task):
    assert found(tmp_path, task) == []


@pytest.mark.parametrize(
    ("task", "more", "part"),
    [
        (agreed(frame=dataclasses.replace(frame(), input_shape=(1, 9, 9), layout=WIDER)), "",
         "another shape"),
        (agreed(frame=frame(classes=2)), "", "more classes than"),
        (agreed(frame=dataclasses.replace(frame(), layout="0" * 64)), "", "the same version"),
        (agreed(frame=dataclasses.replace(frame(), nearest=True)), "[policy]\nnearest = false",
         "(nearest-not-allowed)"),
        (agreed(), "[policy]\ntargets = 'cnn-xs'", "(target-not-allowed)"),
        (agreed(first=Recipe(steps=9)), "[policy]\nmaximum_steps = 8", "(too-many-steps)"),
        (agreed(later=Recipe(steps=2, lr=0.9)), "[policy]\nmaximum_lr = 0.5", "(learning-rate"),
        (agreed(frame=body_frame()), "[policy]\nminimum_head_examples = 13", "(too-few-examples-a"),
        (agreed(), "[policy]\nshared_labels = true", "labels are each site's own"),
        (agreed(frame=dataclasses.replace(frame(), shared_labels=True)), "",
         "labels mean the same at every site of this federation: expected true, got false"),
    ],
)  # fmt: skip
def test_every_difference_is_one_sentence_with_a_remedy(tmp_path, task, more, part):
    (problem,) = found(tmp_path, task, more)
    assert part in problem
    assert problem.endswith(".")


def test_all_differences_are_told_at_once(tmp_path):
    task = agreed(frame=frame(classes=2), first=Recipe(steps=99, lr=5.0))
    assert len(found(tmp_path, task, "[policy]\nmaximum_steps = 8\nmaximum_lr = 1.0")) == 3


@pytest.mark.parametrize(
    ("labels", "count"),
    [('["ok", "scratch", "dent"]', 0), ('["scratch", "ok", "dent"]', 1), ("[]", 1)],
)
def test_shared_labels_are_compared_by_name_and_order(tmp_path, labels, count):
    digits_site(tmp_path)
    with np.load(tmp_path / "train.npz") as data:
        x, y = data["x"], data["y"]
    if labels != "[]":
        np.savez(tmp_path / "train.npz", x=x, y=np.array(["ok", "scratch", "dent"])[y])
    path = tmp_path / "site.toml"
    path.write_text(
        f'name = "north"\ndata = "train.npz"\nlabels = {labels}\n[policy]\nshared_labels = true\n'
    )
    shared = dataclasses.replace(frame(), shared_labels=True)
    task = agreed(frame=shared, labels=("OK ", "scratch", "dent"))
    problems = differences(Site.load(SiteFolder.read(path)), task)
    assert len(problems) == count
    assert all("not those of the federation" in problem for problem in problems)


def test_a_target_that_is_not_allowed_is_neither_imported_nor_built(tmp_path, monkeypatch):
    module, record = tmp_path / "asked_network.py", tmp_path / "imported"
    module.write_text(
        f"import pathlib\nfrom torch import nn\npathlib.Path({str(record)!r}).touch()\n"
        "def network(input_shape, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    task = agreed(frame=dataclasses.replace(frame(), target="asked_network:network"))
    assert [text for text in found(tmp_path, task) if "(target-not-allowed)" not in text] == []
    assert not record.exists()
    own = found(tmp_path, task, "[policy]\ntargets = 'asked_network:network'")
    assert any("same version" in text for text in own)
    assert record.exists()
    easter = agreed(frame=dataclasses.replace(frame(), target="this:d"))
    assert len(found(tmp_path, easter)) == 1
    assert "this" not in sys.modules


def test_a_network_of_the_operator_s_own_that_fails_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "failing_network.py").write_text("def network(shape, classes):\n    return 1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    for target in ("failing_network:network", "failing_network:other", "no_such_module:network"):
        task = agreed(frame=dataclasses.replace(frame(), target=target))
        (problem,) = set(found(tmp_path, task, f"[policy]\ntargets = '{target}'"))
        assert target in problem


def test_a_network_that_is_too_large_is_not_built(tmp_path):
    task = agreed(frame=dataclasses.replace(frame(), classes=10**9))
    (problem,) = (text for text in found(tmp_path, task) if "network" in text)
    assert "(network-too-large)" in problem


@pytest.mark.parametrize(
    ("target", "part"),
    [("nonsense", "unknown target"), ("cnn-xs", "cnn-xs"), ("adapter", "an adapter")],
)
def test_a_network_that_cannot_be_built_hides_no_other_difference(tmp_path, target, part):
    digits_site(tmp_path, more=f"[policy]\ntargets = '{target}'\nmaximum_steps = 1")
    with np.load(tmp_path / "train.npz") as data:
        np.savez(tmp_path / "train.npz", x=data["x"].reshape(-1, 64), y=data["y"])
    vectors = dataclasses.replace(frame(), target=target, input_shape=(64,))
    path = tmp_path / "site.toml"
    problems = differences(Site.load(SiteFolder.read(path)), agreed(frame=vectors))
    assert any(part in text for text in problems)
    assert any("(too-many-steps)" in text for text in problems)


@pytest.mark.parametrize(
    ("task", "answers", "count"),
    [
        (agreed(), "probe", 1),
        (agreed(), "update", 1),
        (agreed(), "probe update", 0),
        (agreed(frame=body_frame()), "probe", 1),
        (agreed(frame=body_frame()), "probe body", 0),
    ],
)
def test_answers_that_may_not_leave_are_told(tmp_path, task, answers, count):
    problems = found(tmp_path, task, f"[policy]\nanswers = '{answers}'")
    assert len(problems) == count
    assert all("(answer-not-allowed)" in text for text in problems)


@pytest.mark.parametrize("table", [True, False])
def test_the_remedy_for_another_shape_suits_the_data(tmp_path, table):
    path = digits_site(tmp_path)
    if table:
        rows = (f"{n},{'ab'[n % 2]},{n % 3}" for n in range(30))
        (tmp_path / "train.csv").write_text("\n".join(["width,kind,label", *rows]))
        path.write_text('name = "north"\n[data]\npath = "train.csv"\nlabel = "label"')
    other = dataclasses.replace(frame(), input_shape=(5,))
    problems = differences(Site.load(SiteFolder.read(path)), agreed(frame=other))
    (problem,) = (text for text in problems if "another shape" in text)
    for part in ("(3,): width, kind = a, kind = b", "indicators", "categories"):
        assert (part in problem) == table
    assert ("resize" in problem) != table


TABLE = dataclasses.replace(
    frame(), input_shape=(3,), layout=build_target("mlp", (3,), 3).layout.digest
)


def table(folder, head: str, line: str) -> Path:
    rows = (line.format(n=n, text="ab"[n % 2], label=n % 3) for n in range(60))
    (folder / "parts.csv").write_text("\n".join([head, *rows]))
    return folder / "parts.csv"


@pytest.mark.parametrize(
    ("features", "part"),
    [
        (("width", "kind = a", "kind = b"), ""),
        (("kind = a", "kind = b", "width"), 'another order, ["width", "kind = a", "kind = b"]'),
        (("height", "kind = a", "kind = b"), 'without ["height"] and with ["width"]'),
        ((), ""),
    ],
)
def test_the_features_of_a_table_are_compared_by_name_and_order(tmp_path, features, part):
    table(tmp_path, "width,kind,label", "{n},{text},{label}")
    path = tmp_path / "site.toml"
    path.write_text('name = "north"\ndata = "parts.csv"')
    task = agreed(frame=TABLE, features=features)
    problems = differences(Site.load(SiteFolder.read(path)), task)
    assert len(problems) == bool(part)
    assert all(part in problem for problem in problems)


def test_a_new_site_makes_the_features_that_are_agreed_on(tmp_path):
    data = table(tmp_path, "label,kind,more,width", "{label},a,{n},{n}")
    data.write_text(data.read_text() + "\n1,a,7,")
    features = ("width", "kind = a", "kind = b")
    path = create_site(tmp_path / "north", "north", data, features=features)
    site = Site.load(SiteFolder.read(path))
    assert differences(site, agreed(frame=TABLE, features=features)) == []
    plain = create_site(tmp_path / "south", "south", data)
    assert Site.load(SiteFolder.read(plain)).encoding.features != features
