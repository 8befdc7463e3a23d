"""The task of a new federation: options, questions in a terminal, sentences where they clash."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from f2l_fed.errors import UsageError
from server.commands import task_options
from server.commands.server import app
from server.commands.task_options import TaskOptions
from server.federation.folder import Federation
from tests.support.sites import digits_site


@pytest.fixture
def data(tmp_path):
    """Examples with three named labels."""
    digits_site(tmp_path)
    with np.load(tmp_path / "train.npz") as found:
        x, y = found["x"], found["y"]
    np.savez(tmp_path / "named.npz", x=x, y=np.array(["ok", "scratch", "dent"])[y])
    return tmp_path / "named.npz"


def init(tmp_path, *more: str, answers: str = ""):
    done = CliRunner().invoke(app, ["init", str(tmp_path / "fed"), *more], input=answers)
    assert done.exit_code == 0, done.output + repr(done.exception)
    return Federation.open(tmp_path / "fed").config, done.output


def test_shape_and_classes_are_taken_of_examples(tmp_path, data):
    config, said = init(tmp_path, "--like", str(data))
    assert (config.target.input_shape, config.target.classes) == ((1, 8, 8), 3)
    assert (config.shared_labels, config.labels) == (False, ())
    assert "images of 8x8 pixels in 1 channel, 2 to 3 classes, each site its own" in said


def test_shared_labels_are_named_in_the_order_that_is_given_or_found(tmp_path, data):
    config, said = init(tmp_path, "--like", str(data), "--shared-labels")
    assert config.labels == ("dent", "ok", "scratch")
    assert "the same at every site: dent, ok, scratch" in said
    (tmp_path / "second").mkdir()
    config, _ = init(tmp_path / "second", "--like", str(data), "--labels", "ok,scratch,dent")
    assert (config.shared_labels, config.labels) == (True, ("ok", "scratch", "dent"))


def test_numbers_are_no_names(tmp_path):
    digits_site(tmp_path)
    like = TaskOptions(like=tmp_path / "train.npz", shared=True)
    assert like.settings() == [
        "target.input_shape=[1, 8, 8]", "target.classes=3", "shared_labels=true",
    ]  # fmt: skip


def test_in_a_terminal_the_task_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(task_options, "at_terminal", lambda: True)
    config, said = init(tmp_path, answers="\n12\ny\nok, scratch\n")
    assert (config.target.name, config.target.input_shape) == ("mlp", (12,))
    assert config.labels == ("ok", "scratch")
    assert "vectors of 12 numbers, 2 classes, the same at every site: ok, scratch" in said
    (tmp_path / "set").mkdir()
    config, said = init(tmp_path / "set", "--set", "target.classes=7")
    assert config.target.classes == 7
    assert "What is the federation for?" not in said


def test_without_a_terminal_the_defaults_are_told_with_the_flags(tmp_path):
    _, said = init(tmp_path)
    assert "images of 28x28 pixels in 1 channel, 2 to 5 classes, each site its own" in said
    assert "--like and --classes of f2l-server init" in said


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (TaskOptions(labels=("a", "b"), shared=False), "names of own labels can't be agreed on"),
        (TaskOptions(labels=("a", "b"), classes=3), "not one name for each class"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, part):
    with pytest.raises(UsageError, match=part):
        options.settings()


def test_a_list_of_names_may_hold_commas():
    assert task_options.labels_of(json.dumps(["a,b", "c"])) == ("a,b", "c")
    with pytest.raises(UsageError, match="not a list of names"):
        task_options.labels_of("[1")
