"""The comparison of a site with the federation's task, before anything is sent."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from clients.site.site import Site, SiteFolder
from clients.training.agreed_task import differences
from f2l_fed.errors import WireError
from f2l_fed.local_training.config import Recipe
from f2l_fed.targets import build_target
from f2l_fed.wire.agreement import TASK, Agreement
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
