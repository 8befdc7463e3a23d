"""Names that no file or index can hold, and tensors that are none, from outside the zoo."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from f2l_fed.errors import ZooError
from f2l_fed.zoo import NewRecord, Zoo
from tests.support.commands import in_process
from tests.support.sites import digits_site

LAYOUT = {"tensors": [{"name": "a", "shape": [3], "dtype": "float32"}]}
PLAIN: dict[str, Any] = {
    "key": "1/north/0",
    "site": "north",
    "round": 1,
    "weights": np.ones(3, np.float32),
    "context": np.ones(2, np.float32),
}
LONG = "k" * 300


@pytest.fixture
def zoo(tmp_path: Path) -> Zoo:
    return Zoo.create(
        tmp_path / "zoo", lineage="x", layout_digest="d", layout=LAYOUT, context_dim=2
    )


@pytest.mark.parametrize(
    "odd",
    [
        {"round": 2**63},
        {"round": 2**70},
        {"round": 1.5},
        {"round": "1"},
        {"round": float("nan")},
        {"parent": "\ud800"},
        {"parent": None},
        {"parent": "a\nb"},
        {"key": "\ud800"},
        {"key": 3},
        {"key": "k" * 2000},
        {"site": None},
        {"site": "s" * 2000},
        {"status": "quarantined", "reason": "\ud800"},
        {"status": "quarantined", "reason": 3},
        {"metrics": {"\ud800": 1.0}},
        {"metrics": {1: 1.0}},
        {"metrics": {"a": "x"}},
        {"metrics": {"a": None}},
        {"metrics": {"a": 10**400}},
        {"metrics": {"a": torch.empty((), device="meta")}},
        {"weights": None},
        {"weights": [1.0, 2.0, 3.0]},
        {"weights": torch.ones(3)},
        {"weights": torch.ones(3).to_sparse()},
        {"weights": torch.empty(3, device="meta")},
        {"context": np.ones(2, np.complex64)},
    ],
    ids=lambda odd: f"{odd!a:.40}",
)
def test_what_the_index_can_not_hold_never_gets_into_the_log(zoo, odd):
    with pytest.raises(ZooError) as error:
        zoo.append([NewRecord(**{**PLAIN, **odd})])
    assert len(str(error.value)) < 1000
    assert zoo.append([NewRecord(**PLAIN)]).number == 1
    assert len(zoo.snapshot().records()) == 1
    assert zoo.verify() == ()


@pytest.mark.parametrize("key", [LONG, "ü" * 300, "1/" + "/" * 290], ids=["k", "ü", "/"])
def test_a_record_with_a_long_key_is_listed_exported_and_imported(zoo, tmp_path, key):
    zoo.append([NewRecord(**{**PLAIN, "key": key})])
    zoo.append([NewRecord(**{**PLAIN, "key": f"{key}2"})])
    files = zoo.export(tmp_path / "out", zoo.snapshot().records(), with_context=True)
    assert len({file.name for file in files}) == 2
    other = Zoo.create(
        tmp_path / "other", lineage="x", layout_digest="d", layout=LAYOUT, context_dim=2
    )
    other.import_file(files[0], site="north", round=1)
    assert np.array_equal(other.snapshot().weights(other.snapshot().records())[0], np.ones(3))


def odd_states() -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
        rows = torch.eye(3).to_sparse_csr()
        nested = torch.nested.nested_tensor([torch.ones(3)])
    return {
        "sparse": torch.ones(3).to_sparse(),
        "csr": rows,
        "meta": torch.empty(3, device="meta"),
        "complex": torch.ones(3, dtype=torch.complex64),
        "half": torch.ones(3).half(),
        "quantized": quantized,
        "nested": nested,
        "empty": torch.ones(0),
        "more": torch.ones(2, 3),
        "list": [1.0, 2.0, 3.0],
        "nan": torch.full((3,), float("nan")),
    }


@pytest.mark.parametrize("kind", odd_states())
@pytest.mark.filterwarnings("ignore")
def test_a_state_dict_of_odd_tensors_is_refused_in_one_sentence(zoo, tmp_path, kind):
    torch.save({"a": odd_states()[kind], "f2l.context": torch.ones(2)}, tmp_path / "net.pt")
    words = ("import", str(tmp_path / "zoo"), str(tmp_path / "net.pt"))
    done = in_process("f2l-admin", "zoo", *words, "--site", "north", "--round", "1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert zoo.snapshot().records() == ()


@pytest.mark.parametrize("key", ["data", "validation", "state"])
@pytest.mark.parametrize("value", ["d" * 300, "x/" * 3000, "a\0b"], ids=["long", "deep", "zero"])
@pytest.mark.parametrize("command", ["check", "status", "sent", "generate"])
def test_a_path_in_a_site_file_that_can_be_none_ends_a_command_in_a_sentence(
    tmp_path, key, value, command
):
    file = digits_site(tmp_path / "site")
    text = file.read_text().replace('data = "train.npz"\n', "")
    values = {"data": "train.npz", key: value}
    lines = [f"{name} = {json.dumps(text)}\n" for name, text in values.items()]
    file.write_text(text + "".join(lines))
    done = in_process("f2l-site", command, str(file))
    assert done.returncode in (0, 1, 2)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("f2l-site", "init", LONG, "--data", "train.npz"),
        ("f2l-site", "check", LONG),
        ("f2l-site", "check", "\udcff"),
        ("f2l-admin", "zoo", "list", "ZOO", "--site", "\udcff"),
        ("f2l-admin", "zoo", "stats", LONG),
        ("f2l-admin", "zoo", "export", "ZOO", LONG),
        ("f2l-server", "init", LONG),
        ("f2l-server", "run", "\udcff"),
    ],
    ids=lambda words: ascii(" ".join(words))[:50],
)
def test_an_argument_that_can_be_no_path_or_text_ends_a_command_in_a_sentence(zoo, tmp_path, words):
    zoo.append([NewRecord(**PLAIN)])
    given = [str(tmp_path / "zoo") if word == "ZOO" else word for word in words]
    done = in_process(*given)
    assert done.returncode in (1, 2)
    assert done.stderr + done.stdout
    assert "Traceback" not in done.stderr
