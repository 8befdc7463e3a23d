from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from f2l_fed.errors import ZooError
from f2l_fed.zoo import Zoo, ZooStats
from f2l_fed.zoo.format import shards
from tests.unit.f2l_fed.zoo.samples import (
    CONTEXT,
    LAYOUT,
    WEIGHTS,
    keys_of,
    new_record,
    new_records,
    new_zoo,
    shard_files,
)


def test_what_goes_in_comes_out_of_a_newly_opened_zoo(zoo: Zoo, path: Path):
    new = [
        new_record("0/north/0", metrics={"loss": 0.1, "n": 3.0}, parent="r1"),
        new_record("0/south/0", status="quarantined", reason="norm too large\nby far"),
        new_record("1/north/0"),
    ]
    commit = zoo.append(new)
    view = Zoo.open(path).snapshot()
    records = view.records(status=None)
    by_key = {record.key: record for record in records}
    assert (commit.number, commit.rows, view.commit) == (1, 3, 1)
    for given in new:
        kept = by_key[given.key]
        for field in ("site", "round", "parent", "metrics", "status", "reason"):
            assert getattr(kept, field) == getattr(given, field)
        np.testing.assert_array_equal(view.weights([kept])[0], given.weights)
        np.testing.assert_array_equal(view.contexts([kept])[0], given.context)


def test_rows_come_in_the_order_they_were_asked_for(zoo: Zoo):
    new = new_records("0/a/0", "0/b/0", "1/a/0", "2/b/0")
    zoo.append(new[:3])
    zoo.append(new[3:])
    view = zoo.snapshot()
    wanted = [new[i] for i in (3, 0, 2, 1, 0)]
    by_key = {record.key: record for record in view.records()}
    records = [by_key[record.key] for record in wanted]
    np.testing.assert_array_equal(view.weights(records), [record.weights for record in wanted])
    np.testing.assert_array_equal(view.contexts(records), [record.context for record in wanted])
    assert view.weights([]).shape == (0, WEIGHTS)
    assert view.contexts([]).shape == (0, CONTEXT)


def test_a_key_enters_once(zoo: Zoo):
    first = zoo.append(new_records("0/a/0", "0/b/0"))
    assert zoo.append(new_records("0/b/0", "0/a/0")) == first
    second = zoo.append(new_records("0/b/0", "0/c/0"))
    assert (second.number, second.rows) == (2, 1)
    assert keys_of(zoo.snapshot().records()) == ["0/a/0", "0/b/0", "0/c/0"]


def test_nothing_appended_to_an_empty_zoo_is_commit_zero(zoo: Zoo):
    assert zoo.append([]).number == 0
    assert zoo.snapshot().records() == ()


def test_a_key_twice_in_one_append_is_refused(zoo: Zoo):
    with pytest.raises(ZooError, match="record 0/a/0: the key comes twice"):
        zoo.append(new_records("0/a/0", "0/a/0"))


def test_a_snapshot_does_not_see_later_commits(zoo: Zoo, path: Path):
    zoo.append(new_records("0/a/0"))
    view = zoo.snapshot()
    Zoo.open(path).append(new_records("1/a/0"))
    assert keys_of(view.records()) == ["0/a/0"]
    assert keys_of(zoo.snapshot().records()) == ["0/a/0", "1/a/0"]
    assert keys_of(zoo.snapshot(1).records()) == ["0/a/0"]
    assert zoo.snapshot(0).records() == ()
    with pytest.raises(ZooError, match="younger than the snapshot"):
        view.weights(zoo.snapshot().records())


def test_a_snapshot_of_a_commit_to_come_is_refused(zoo: Zoo):
    with pytest.raises(ZooError, match="no such commit: expected 0 to 0, got 1"):
        zoo.snapshot(1)


def test_records_can_be_chosen(zoo: Zoo):
    zoo.append(new_records("0/a/0", "0/b/0", "3/a/0"))
    zoo.append([*new_records("1/a/0"), new_record("1/b/0", status="quarantined", reason="odd")])
    zoo.append(new_records("3/a/1"))
    view = zoo.snapshot()
    assert keys_of(view.records(site="b")) == ["0/b/0"]
    assert keys_of(view.records(round=1, status=None)) == ["1/a/0", "1/b/0"]
    assert keys_of(view.records(status="quarantined")) == ["1/b/0"]
    assert keys_of(view.records(latest_per_site=True)) == ["0/b/0", "3/a/1"]
    assert keys_of(view.records(latest_per_site=True, status=None)) == ["1/b/0", "3/a/1"]


def test_an_append_of_many_sites_is_one_file_with_the_rows_of_a_site_together(zoo: Zoo, path: Path):
    zoo.append(new_records("0/a/0", "0/b/0", "1/a/0"))
    assert len(shard_files(path)) == 1
    places = {record.key: record.row for record in zoo.snapshot().records()}
    assert places == {"0/a/0": 0, "1/a/0": 1, "0/b/0": 2}


def test_many_rows_of_a_site_are_spread_over_shards(
    zoo: Zoo, path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shards, "MAX_BYTES", 2 * 4 * (WEIGHTS + CONTEXT))
    new = [new_record(f"{number}/a/0") for number in range(5)]
    zoo.append(new)
    view = zoo.snapshot()
    assert len(shard_files(path)) == 3
    np.testing.assert_array_equal(view.weights(view.records()), [r.weights for r in new])
    assert zoo.verify() == ()


def test_equal_rows_share_a_shard(zoo: Zoo, path: Path):
    same = new_record("0/a/0")
    zoo.append([same])
    zoo.append([new_record("1/a/0", weights=same.weights, context=same.context)])
    view = zoo.snapshot()
    assert len(shard_files(path)) == 1
    np.testing.assert_array_equal(view.weights(view.records()), [same.weights, same.weights])


def test_stats_count_what_is_there(zoo: Zoo):
    zoo.append([*new_records("0/a/0", "0/b/0", "1/a/0")])
    zoo.append([new_record("4/c/0", status="quarantined", reason="odd")])
    zoo.forget("a")
    assert zoo.stats() == ZooStats(
        records=2,
        quarantined=1,
        sites=2,
        rounds=2,
        commits=4,
        size_bytes=2 * 4 * (WEIGHTS + CONTEXT),
        forgotten=("a",),
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": np.zeros(8, np.float32)}, r"weights: .*expected \(9,\) float32, got \(8,\)"),
        ({"context": np.zeros(4)}, r"context: .*expected \(4,\) float32, got \(4,\) float64"),
        ({"weights": np.full(9, np.nan, np.float32)}, r"weights\[0\]: a number is not finite"),
        ({"metrics": {"loss": float("inf")}}, "metric loss: a metric is not finite: got inf"),
        ({"site": "a\nb"}, "invalid site"),
        ({"round": -1}, "invalid round"),
        ({"status": "quarantined"}, "status and reason disagree"),
        ({"reason": "why"}, "status and reason disagree"),
    ],
)
def test_a_record_that_cannot_be_is_refused_and_leaves_nothing(
    zoo: Zoo, path: Path, changes: dict[str, object], message: str
):
    with pytest.raises(ZooError, match=message):
        zoo.append([new_record("0/a/0"), new_record("0/b/0", **changes)])
    assert shard_files(path) == []
    assert zoo.snapshot().commit == 0


def test_a_zoo_is_not_created_over_another(zoo: Zoo, path: Path):
    with pytest.raises(ZooError, match="there is a zoo already"):
        new_zoo(path)


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"tensors": []},
        {"tensors": [{**LAYOUT["tensors"][0], "dtype": "int64"}]},
        {"tensors": [LAYOUT["tensors"][0]] * 2},
        {"tensors": [{"name": "w", "shape": ["x"], "dtype": "float32"}]},
    ],
)
def test_a_layout_that_cannot_be_is_refused(path: Path, layout: dict[str, object]):
    with pytest.raises(ZooError, match="invalid layout or length of a context"):
        Zoo.create(path, lineage="x", layout_digest="y", layout=layout, context_dim=1)
    assert not path.exists()
