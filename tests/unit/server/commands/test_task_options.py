"""The task of a new federation: options, questions in a terminal, sentences where they clash."""

from __future__ import annotations

import itertools
import json
import tomllib

import numpy as np
import pytest
from typer.testing import CliRunner

from f2l_fed.core.config_parsing import from_mapping
from f2l_fed.data.readers.config import ReadingConfig
from f2l_fed.data.readers.encoding_fit import fit_encoding
from f2l_fed.data.readers.findings import Findings
from f2l_fed.data.readers.reading import read_raw
from f2l_fed.errors import UsageError
from server.commands import task_options
from server.commands.server import app
from server.commands.task_options import TaskOptions
from server.federation.folder import Federation
from tests.support.checked_site import write_picture
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


def test_photos_of_several_sizes_are_brought_to_one(tmp_path):
    for number, size in enumerate([(8, 6), (20, 30), (9, 9)] * 2):
        write_picture(tmp_path / f"photos/{'ab'[number % 2]}/{number}.png", size=size, mode="RGB")
    photos = ("--like", str(tmp_path / "photos"))
    done = CliRunner().invoke(app, ["init", str(tmp_path / "fed"), *photos])
    assert "init takes --resize 64,64" in str(done.exception)
    config, said = init(tmp_path, *photos, "--resize", "16,12")
    assert config.target.input_shape == (3, 12, 16)
    assert "remark: 6 images were brought to 16x12 pixels" in said
    for wrong in ("16,12,3", "wide", "0", "-4"):
        done = CliRunner().invoke(
            app, ["init", str(tmp_path / "other"), *photos, "--resize", wrong]
        )
        assert "--resize: not a size of images" in str(done.exception)
    done = CliRunner().invoke(app, ["init", str(tmp_path / "other"), "--resize", "16"])
    assert "--resize: there are no examples to take it of" in str(done.exception)


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
    for number, wrong in enumerate(("1,28,28.5", "28x28", "abc", "0", "")):
        (tmp_path / str(number)).mkdir()
        lines = f"\n{wrong}\n1,28,28\nn\n1\n4\n"
        config, said = init(tmp_path / str(number), answers=lines)
        assert (config.target.input_shape, config.target.classes) == ((1, 28, 28), 4)
        assert ("not the shape of an image or a vector" in said) == bool(wrong)
        assert "expected at least 2, got 1" in said
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
        (TaskOptions(label="kind"), "no examples to take it of"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, part):
    with pytest.raises(UsageError, match=part):
        options.settings()


def test_a_list_of_names_may_hold_commas():
    assert task_options.labels_of(json.dumps(["a,b", "c"])) == ("a,b", "c")
    with pytest.raises(UsageError, match="not a list of names"):
        task_options.labels_of("[1")


@pytest.mark.parametrize("text", ["ok,,dent", "ok,", '["ok", " "]'])
def test_an_empty_name_is_refused(text):
    with pytest.raises(UsageError, match="a name is empty"):
        task_options.labels_of(text)


def test_no_names_are_none():
    assert task_options.labels_of(" ") == ()


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"classes": 2}, "--classes: the examples have more classes: expected at least 3"),
        ({"labels": ("OK", "crack", "dent")}, "expected also scratch"),
    ],
)
def test_options_that_contradict_the_examples_are_refused(data, options, part):
    with pytest.raises(UsageError) as caught:
        TaskOptions(like=data, **options).settings()
    assert part in str(caught.value)
    assert TaskOptions(like=data, classes=4).settings()[1] == "target.classes=4"


def test_shared_labels_need_their_number():
    with pytest.raises(UsageError, match="number of classes that the sites share is not said"):
        task_options.task_settings(TaskOptions(shared=True), {}, [])
    said = [task_options.task_settings(TaskOptions(shared=True), {"target": {"classes": 3}}, [])]
    said.append(task_options.task_settings(TaskOptions(shared=True), {}, ["target.classes=3"]))
    assert said == [["shared_labels=true"]] * 2


def test_the_column_of_labels_can_be_named(tmp_path):
    rows = (f"{'ab'[n % 2]},{n},{n % 3}" for n in range(30))
    (tmp_path / "parts.csv").write_text("\n".join(["kind,width,quality", *rows]))
    for label, classes in (("kind", 2), ("quality", 3)):
        (tmp_path / label).mkdir()
        options = ("--like", str(tmp_path / "parts.csv"), "--label", label)
        config, said = init(tmp_path / label, *options)
        assert config.target.classes == classes
        assert f"{'2 to ' * (classes > 2)}{classes} classes, each site its own" in said
        assert "2 to 2" not in said


def test_a_table_s_features_are_printed_as_settings_that_make_them_again(tmp_path):
    rows = (f"{n if n % 7 else ''},{'ab'[n % 2]},{n % 5},{n % 3}" for n in range(60))
    (tmp_path / "parts.csv").write_text("\n".join(["width,kind,depth,label", *rows]))
    config, said = init(tmp_path, "--like", str(tmp_path / "parts.csv"))
    lines = said.split("can take them over:\n")[1].splitlines()
    settings = tomllib.loads(
        "\n".join(itertools.takewhile(lambda line: "/fed: a " not in line, lines))
    )
    # Another site's table: another order, no gaps, another text.
    others = (f"{n % 3},{n % 5},{n},a" for n in range(60))
    (tmp_path / "other.csv").write_text("\n".join(["label,depth,width,kind", *others]))
    reading = from_mapping(ReadingConfig, settings["data"], where="")
    raw = read_raw(tmp_path / "other.csv", reading)
    encoding = fit_encoding(raw, np.arange(60), reading, Findings(""))
    assert (
        encoding.features
        == config.features
        == ("width", "width is missing", "kind = a", "kind = b", "depth")
    )
    assert "remark: " in said
