from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from f2l_fed.zoo import NewRecord, Zoo
from tests.unit.f2l_fed.zoo.samples import LAYOUT, WEIGHTS, keys_of

GOLDEN = Path(__file__).parents[3] / "golden" / "zoo"
MERGED = GOLDEN.with_name("zoo-merged")
SHARED = GOLDEN.with_name("zoo-shared")
FORMATTED = ("zoo.json", "log", "shards")


def golden_record(number: int, site: str, **changes: object) -> NewRecord:
    fields: dict[str, object] = {
        "key": f"{number}/{site}/0",
        "site": site,
        "round": number,
        "parent": "r1",
        "weights": np.arange(WEIGHTS, dtype=np.float32) / 8 + number,
        "context": np.array([1, -2, 0.5, number], np.float32),
        "metrics": {"accuracy": 0.1, "loss": 1e-7},
        **changes,
    }
    return NewRecord(**fields)  # type: ignore[arg-type]


def write_golden(path: Path) -> Zoo:
    zoo = Zoo.create(path, lineage="golden", layout_digest="0f" * 32, layout=LAYOUT, context_dim=4)
    zoo.append(
        [
            golden_record(0, "north"),
            golden_record(1, "north", status="quarantined", reason="norm"),
            golden_record(2, "süd"),
        ]
    )
    zoo.forget("süd")
    zoo.append([golden_record(3, "north")])
    zoo.append([golden_record(4, "öst"), golden_record(4, "north")])
    zoo.compact()
    return zoo


def formatted_files(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.relative_to(path).parts[0] in FORMATTED
    }


def test_all_formats_are_written_to_the_byte(path: Path):
    write_golden(path)
    assert formatted_files(path) == formatted_files(SHARED)


def test_format_1_is_read(tmp_path: Path):
    zoo = Zoo.open(shutil.copytree(GOLDEN, tmp_path / "zoo"))
    view = zoo.snapshot()
    records = view.records(status=None)
    assert keys_of(records) == ["0/north/0", "1/north/0"]
    assert view.weights(records)[1].tolist() == [1 + i / 8 for i in range(WEIGHTS)]
    assert zoo.stats().forgotten == ("süd",)
    assert zoo.verify() == ()


def test_only_a_merge_says_format_2_and_only_shared_files_say_3():
    for folder, formats in ((MERGED, [1, 1, 1, 2]), (SHARED, [3, 1, 2, 1, 3, 3])):
        said = [json.loads(file.read_bytes()) for file in sorted((folder / "log").iterdir())]
        assert [entry["format"] for entry in said] == formats
        assert json.loads((folder / "zoo.json").read_bytes())["format"] == 1


def test_a_zoo_with_shared_files_is_read(tmp_path: Path):
    zoo = Zoo.open(shutil.copytree(SHARED, tmp_path / "zoo"))
    view = zoo.snapshot()
    records = view.records(status=None)
    assert keys_of(records) == ["0/north/0", "1/north/0", "3/north/0", "4/öst/0", "4/north/0"]
    assert [record.row for record in records] == list(range(5))
    assert view.weights(records)[:, 0].tolist() == [0, 1, 3, 4, 4]
    assert zoo.verify() == ()
    zoo.forget("north")
    assert keys_of(zoo.snapshot().records(status=None)) == ["4/öst/0"]
    assert zoo.verify() == ()


def test_a_merged_zoo_is_read(tmp_path: Path):
    zoo = Zoo.open(shutil.copytree(MERGED, tmp_path / "zoo"))
    records = zoo.snapshot().records(status=None)
    assert keys_of(records) == ["0/north/0", "1/north/0", "3/north/0"]
    assert [(record.commit, record.row) for record in records] == [(1, 0), (1, 1), (3, 2)]
    assert zoo.snapshot().weights(records)[:, 1].tolist() == [0.125, 1.125, 3.125]
    old = zoo.snapshot(1)
    assert old.weights(old.records(site="north")).tolist() == [[i / 8 for i in range(WEIGHTS)]]
    assert zoo.verify() == ()


def test_a_shard_is_a_safetensors_file():
    (shard,) = (GOLDEN / "shards").iterdir()
    tensors = load_file(shard)
    assert tensors["w"].shape == (2, WEIGHTS)
    assert tensors["c"].tolist() == [[1, -2, 0.5, 0], [1, -2, 0.5, 1]]
