from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from f2l_fed.errors import RecordErased, ZooError
from f2l_fed.zoo import Zoo
from f2l_fed.zoo.format import commit_log, shards
from f2l_fed.zoo.maintenance import compaction
from tests.unit.f2l_fed.zoo.samples import (
    flip_bit,
    keys_of,
    new_record,
    new_records,
    new_zoo,
    shard_files,
)


def files_with(path: Path, row: np.ndarray) -> list[Path]:
    return [f for f in path.rglob("*") if f.is_file() and row.tobytes() in f.read_bytes()]


def test_forgetting_a_site_removes_its_bytes_and_only_them(zoo: Zoo, path: Path):
    gone, kept = new_record("0/a/0"), new_record("0/b/0")
    zoo.append([gone, kept])
    assert len(files_with(path, gone.weights)) == len(files_with(path, gone.context)) == 1
    commit = zoo.forget("a")
    assert (commit.number, commit.kind) == (2, "forget")
    assert files_with(path, gone.weights) == files_with(path, gone.context) == []
    view = Zoo.open(path).snapshot()
    assert keys_of(view.records()) == ["0/b/0"]
    np.testing.assert_array_equal(view.weights(view.records()), [kept.weights])
    assert zoo.verify() == ()


def test_no_fragment_of_an_erased_row_is_left_in_any_file(zoo: Zoo, path: Path):
    """Index, journals and unfinished files included; a fragment is two numbers side by side."""
    gone = [new_record(f"{number}/a/0") for number in range(5)]
    for record in gone:
        zoo.append([record, new_record(record.key.replace("a", "b"))])
        zoo.snapshot().weights(zoo.snapshot().records())
    shutil.copy(path / "index.sqlite", path / "index.sqlite-journal")
    (path / "tmp" / "unfinished").write_bytes(gone[0].weights.tobytes()[:20])
    fragments = {
        row.tobytes()[start : start + 8]
        for record in gone
        for row in (record.weights, record.context)
        for start in range(0, len(row.tobytes()) - 7, 4)
    }

    def found() -> int:
        content = b"".join(file.read_bytes() for file in path.rglob("*") if file.is_file())
        return sum(fragment in content for fragment in fragments)

    assert found() == len(fragments)
    zoo.forget("a")
    assert found() == 0
    assert len(zoo.snapshot().records()) == 5


def test_an_old_snapshot_lists_erased_rows_but_refuses_to_read_them(zoo: Zoo, path: Path):
    zoo.append(new_records("0/a/0", "0/b/0"))
    view = zoo.snapshot()
    records = view.records()
    Zoo.open(path).forget("a")
    assert keys_of(view.records()) == keys_of(records)
    np.testing.assert_array_equal(view.weights(records[1:]), [new_record("0/b/0").weights])
    for read in (view.weights, view.contexts):
        with pytest.raises(RecordErased, match="0/a/0 of site a: the record was erased"):
            read(records)


def test_an_interrupted_erasure_is_finished_on_opening(zoo: Zoo, path: Path):
    gone = new_record("0/a/0")
    head = zoo.append([gone, new_record("0/b/0")])
    tombstone = commit_log.Entry(number=2, previous=head.sha256, kind="forget", site="a")
    (path / commit_log.name(2)).write_bytes(commit_log.encode(tombstone))
    assert [fault.what[:24] for fault in zoo.verify()] == ["it still has erased rows"]
    with pytest.raises(ZooError, match="the record was erased"):
        zoo.snapshot(1).weights(zoo.snapshot(1).records(site="a"))
    reopened = Zoo.open(path)
    assert files_with(path, gone.weights) == []
    assert reopened.verify() == ()


def test_erasure_takes_what_dead_writers_left(zoo: Zoo, path: Path):
    zoo.append(new_records("0/a/0"))
    (path / "tmp" / "unfinished").write_bytes(b"row")
    (path / "shards" / "unnamed.safetensors").write_bytes(b"row")
    zoo.forget("a")
    assert shard_files(path) == []
    assert list((path / "tmp").iterdir()) == []


def test_rows_that_two_sites_share_stay_until_both_are_forgotten(zoo: Zoo, path: Path):
    one = new_record("0/a/0")
    zoo.append([one, new_record("0/b/0", weights=one.weights, context=one.context)])
    zoo.forget("a")
    view = zoo.snapshot()
    np.testing.assert_array_equal(view.weights(view.records()), [one.weights])
    zoo.forget("b")
    assert files_with(path, one.weights) == []


def test_erased_records_do_not_come_back_but_the_site_may(zoo: Zoo):
    zoo.append(new_records("0/a/0"))
    tombstone = zoo.forget("a")
    assert zoo.append(new_records("0/a/0")) == tombstone
    assert zoo.snapshot().records() == ()
    zoo.append([new_record("7/a/0", weights=new_record("0/a/0").weights)])
    view = zoo.snapshot()
    assert keys_of(view.records()) == ["7/a/0"]
    assert view.weights(view.records()).shape[0] == 1
    assert zoo.stats().forgotten == ("a",)


def test_an_erasure_between_the_rows_of_others_is_finished_on_opening(place: Path | str):
    zoo = new_zoo(place)
    zoo.append(new_records("0/a/0", "0/b/0", "0/c/0"))
    head = zoo.append(new_records("1/b/0", "1/a/0"))
    store = zoo.snapshot().store
    tombstone = commit_log.Entry(number=3, previous=head.sha256, kind="forget", site="a")
    commit_log.publish(store, tombstone)
    assert [fault.what[:24] for fault in zoo.verify()] == ["it still has erased rows"] * 2
    found = Zoo.open(place)
    assert found.verify() == ()
    content = b"".join(bytes(store.get(name)) for name in store.names("shards"))
    for key in ("0/a/0", "1/a/0"):
        assert new_record(key).weights.tobytes() not in content
    view = found.snapshot()
    assert keys_of(view.records()) == ["0/b/0", "0/c/0", "1/b/0"]
    for record, row in zip(view.records(), view.weights(view.records()), strict=True):
        np.testing.assert_array_equal(row, new_record(record.key).weights)
    commits = view.commit
    assert Zoo.open(place).snapshot().commit == commits


def test_an_erasure_keeps_what_is_known_of_a_damaged_row_beside_it(zoo: Zoo, path: Path):
    zoo.append(new_records("0/a/0", "0/b/0"))
    (shard,) = shard_files(path)
    flip_bit(shard, shard.stat().st_size - 1)
    zoo.forget("a")
    assert files_with(path, new_record("0/a/0").weights) == []
    assert [fault.what for fault in zoo.verify()] == ["the context of 0/b/0 are damaged"]
    with pytest.raises(ZooError, match="row 0: the shard is damaged"):
        zoo.snapshot().contexts(zoo.snapshot().records())


def test_a_row_that_was_sent_again_to_the_bit_stays(zoo: Zoo, path: Path):
    rows = new_records("0/a/0", "0/b/0")
    zoo.append(rows)
    zoo.forget("a")
    zoo.forget("b")
    assert shard_files(path) == []
    again = [
        new_record(f"1/{row.site}/0", weights=row.weights, context=row.context) for row in rows
    ]
    zoo.append(again)
    assert keys_of(Zoo.open(path).snapshot().records()) == ["1/a/0", "1/b/0"]
    assert zoo.verify() == ()
    zoo.forget("a")
    assert files_with(path, rows[0].weights) == []
    assert zoo.verify() == ()


def test_forgetting_twice_is_forgetting_once(zoo: Zoo):
    zoo.append(new_records("0/a/0"))
    assert zoo.forget("a") == zoo.forget("a")


def test_forgetting_an_unknown_site_is_refused(zoo: Zoo):
    with pytest.raises(ZooError, match="no such site: got 'A'"):
        zoo.forget("A")


def test_nothing_is_deleted_while_the_log_has_a_gap(zoo: Zoo, path: Path):
    for number in range(3):
        zoo.append(new_records(f"{number}/a/0", f"{number}/b/0"))
    zoo.snapshot()
    (path / commit_log.name(2)).unlink()
    before = shard_files(path)
    for opened in (zoo, Zoo.open(path)):
        with pytest.raises(ZooError, match="a log entry is missing"):
            opened.forget("a")
    assert set(before) <= set(shard_files(path))


def test_a_missing_file_holds_up_the_erasure_of_no_other(zoo: Zoo, path: Path):
    zoo.append(new_records("0/a/0", "0/b/0"))
    zoo.append(new_records("1/a/0", "1/c/0"))
    zoo.append(new_records("2/a/0"))
    zoo.append(new_records("3/d/0"))
    (lost,) = files_with(path, new_record("0/a/0").weights)
    kept = lost.read_bytes()
    lost.unlink()
    for site in ("a", "d"):
        with pytest.raises(ZooError, match=f"{lost.name}: the file is missing"):
            zoo.forget(site)
    assert [row.key for row in zoo.snapshot().records()] == ["0/b/0", "1/c/0"]
    (moved,) = shard_files(path)
    assert new_record("1/c/0").weights.tobytes() in moved.read_bytes()
    lost.write_bytes(kept)
    assert Zoo.open(path).verify() == ()
    assert files_with(path, new_record("0/a/0").weights) == []


def test_on_a_full_disk_files_of_the_site_alone_are_deleted(
    zoo: Zoo, path: Path, monkeypatch: pytest.MonkeyPatch
):
    zoo.append(new_records("0/a/0", "0/b/0"))
    zoo.append(new_records("1/a/0"))
    write = shards.put

    def refuse(*_: object) -> None:
        raise ZooError("no space left to write")

    monkeypatch.setattr(shards, "put", refuse)
    with pytest.raises(ZooError, match="no space left"):
        zoo.forget("a")
    assert len(shard_files(path)) == 1
    assert files_with(path, new_record("1/a/0").weights) == []
    monkeypatch.setattr(shards, "put", write)
    assert Zoo.open(path).verify() == ()
    assert files_with(path, new_record("0/a/0").weights) == []


def test_a_file_that_is_left_after_all_others_of_its_site_is_deleted_on_opening(
    zoo: Zoo, path: Path
):
    zoo.append(new_records("0/a/0", "0/b/0"))
    zoo.append(new_records("1/a/0"))
    before = {file: file.read_bytes() for file in shard_files(path)}
    zoo.forget("a")
    # As if a process had died at any of the deletions.
    for file, data in before.items():
        file.write_bytes(data)
        assert Zoo.open(path).verify() == ()
        assert not file.exists()


def test_an_erasure_goes_on_where_another_process_has_moved_the_rows_meanwhile(
    s3_url: str, monkeypatch: pytest.MonkeyPatch
):
    zoo = new_zoo(s3_url)
    zoo.append(new_records("0/a/0", "0/b/0"))
    zoo.append(new_records("1/a/0", "1/c/0"))
    other, write = Zoo.open(s3_url), compaction.write

    def write_late(*asked: object, **options: object) -> commit_log.Entry:
        monkeypatch.setattr(compaction, "write", write)
        other.compact()
        return write(*asked, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(compaction, "write", write_late)
    assert zoo.forget("a").number == 3
    assert keys_of(zoo.snapshot().records()) == ["0/b/0", "1/c/0"]
    assert zoo.verify() == ()
