"""Small shards become large ones: what a merge changes, and what it must not."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from f2l_fed.errors import RecordErased, ZooError
from f2l_fed.zoo import Query, Reader, Record, Zoo
from f2l_fed.zoo.format import commit_log, shards
from f2l_fed.zoo.maintenance import compaction
from f2l_fed.zoo.storage import s3
from tests.support.waiting import PATIENCE_S
from tests.unit.f2l_fed.zoo.samples import (
    CONTEXT,
    WEIGHTS,
    flip_bit,
    keys_of,
    new_record,
    new_records,
    new_zoo,
    shard_files,
    write_many,
)

Place = Path | str
spawn = multiprocessing.get_context("spawn")
KEYS = tuple(f"{number}/{site}/0" for number in range(6) for site in "ab")


@pytest.fixture(autouse=True)
def old_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """An object store gives up files only when no writer can be about to name them."""
    monkeypatch.setattr(s3, "ABANDONED_AFTER_S", -60)


@pytest.fixture
def filled(place: Place) -> Zoo:
    zoo = new_zoo(place)
    for key in KEYS:
        zoo.append(new_records(key))
    return zoo


def require_numbers(zoo: Zoo, records: tuple[Record, ...], commit: int | None = None) -> None:
    view = zoo.snapshot(commit)
    for read, numbers in ((view.weights, "weights"), (view.contexts, "context")):
        for record, row in zip(records, read(records), strict=True):
            np.testing.assert_array_equal(row, getattr(new_record(record.key), numbers))


def limit_rows(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(compaction, "MAX_BYTES", rows * 4 * (WEIGHTS + CONTEXT))


def apart_from_place(records: tuple[Record, ...]) -> list[tuple[object, ...]]:
    return [(r.key, r.site, r.commit, r.crc32, dict(r.metrics), r.status) for r in records]


def test_all_sites_get_one_file_and_no_record_changes_but_its_place(place: Place, filled: Zoo):
    before = filled.snapshot().records()
    assert filled.compact().files == len(KEYS)
    assert len(filled.snapshot().store.names("shards")) == 1
    for zoo in (filled, Zoo.open(place)):
        after = zoo.snapshot().records()
        assert apart_from_place(after) == apart_from_place(before)
        assert [record.row for record in after] == list(range(len(KEYS)))
        require_numbers(zoo, after)
        assert zoo.verify() == ()
        zoo.reindex()
        assert zoo.snapshot().records() == after
    assert filled.snapshot().commit == len(KEYS) + 1


def test_every_older_snapshot_and_record_goes_on_to_be_readable(filled: Zoo):
    listed = filled.snapshot().records()
    filled.compact()
    filled.append(new_records("6/a/0"))
    filled.compact()
    require_numbers(filled, listed, len(KEYS))
    for commit in range(1, len(KEYS) + 1):
        view = filled.snapshot(commit)
        assert keys_of(view.records()) == list(KEYS[:commit])
        require_numbers(filled, view.records(), commit)


def test_what_is_large_or_alone_is_left_as_it_is(place: Place, monkeypatch: pytest.MonkeyPatch):
    limit_rows(monkeypatch, 4)
    zoo = new_zoo(place)
    zoo.append(new_records("0/a/0", "1/a/0", "2/b/0"))
    zoo.append([new_record("0/c/0", status="quarantined", reason="norm")])
    for _ in range(2):
        assert zoo.compact().files == 0
        assert zoo.snapshot().commit == 2
    zoo.append(new_records("1/c/0", "1/d/0"))
    assert zoo.compact().files == 2
    assert zoo.snapshot().commit == 4


def test_no_shard_and_no_merge_becomes_larger_than_the_limit(
    filled: Zoo, monkeypatch: pytest.MonkeyPatch
):
    limit_rows(monkeypatch, 4)
    filled.compact()
    store = filled.snapshot().store
    merges = [entry for _, entry in commit_log.entries(store) if entry.kind == "merge"]
    assert [[len(move.rows) for move in entry.moves] for entry in merges] == [[4], [4], [4]]
    uses = [record.shard for record in filled.snapshot().records()]
    assert sorted(uses.count(use) for use in set(uses)) == [4, 4, 4]
    require_numbers(filled, filled.snapshot().records())
    assert filled.verify() == ()


def test_a_few_small_shards_are_left_until_they_are_many(place: Place, filled: Zoo):
    filled.tidy(most=len(KEYS))
    assert filled.snapshot().commit == len(KEYS)
    filled.tidy(most=len(KEYS) - 1)
    assert len(filled.snapshot().store.names("shards")) == 1
    require_numbers(Zoo.open(place), filled.snapshot().records())


@pytest.mark.parametrize("ahead", [0, 2])
def test_a_reader_goes_on_where_it_was_and_another_one_in_the_same_order(
    place: Place, filled: Zoo, ahead: int
):
    view = filled.snapshot()
    expected = [
        keys_of(batch.records) for batch in Reader(view, batch_size=3, seed=7, ahead=ahead).epoch()
    ]
    batches = Reader(view, batch_size=3, seed=7, ahead=ahead).epoch()
    first = next(batches)
    assert first.weights.shape == (3, WEIGHTS)
    Zoo.open(place).compact()
    rest = list(batches)
    resumed = list(
        Reader(Zoo.open(place).snapshot(view.commit), batch_size=3, seed=7).epoch(first.next)
    )
    assert [keys_of(batch.records) for batch in rest] == expected[1:]
    assert [keys_of(batch.records) for batch in resumed] == expected[1:]
    for batch in (*rest, *resumed):
        for record, row, context in zip(batch.records, batch.weights, batch.contexts, strict=True):
            np.testing.assert_array_equal(row, new_record(record.key).weights)
            np.testing.assert_array_equal(context, new_record(record.key).context)


def test_a_reader_of_a_newer_snapshot_shuffles_within_the_large_shards(filled: Zoo):
    filled.compact()
    reader = Reader(filled.snapshot(), Query(site="a"), batch_size=6, seed=0, window_bytes=1)
    (batch,) = reader.epoch()
    assert sorted(keys_of(batch.records)) == sorted(key for key in KEYS if "/a/" in key)


def test_an_erased_site_leaves_no_byte_in_small_or_large_shards(
    place: Place, filled: Zoo, monkeypatch: pytest.MonkeyPatch
):
    # Of the small shards nothing goes at once: a writer might be about to name the same bytes.
    if isinstance(place, str):
        monkeypatch.setattr(s3, "ABANDONED_AFTER_S", 3600)
    old = filled.snapshot()
    filled.compact()
    filled.append(new_records("6/a/0"))
    filled.forget("a")
    store = filled.snapshot().store
    content = b"".join(bytes(store.get(name)) for name in store.names("shards"))
    for key in KEYS:
        assert (new_record(key).weights.tobytes() in content) == ("/b/" in key)
    with pytest.raises(RecordErased, match="of site a"):
        old.weights(old.records())
    assert old.weights(old.records(site="b")).shape == (6, WEIGHTS)
    assert filled.verify() == ()


def test_an_erasure_of_merged_rows_that_was_interrupted_is_finished_on_opening(
    place: Place, filled: Zoo
):
    filled.compact()
    view = filled.snapshot()
    (move,) = commit_log.read(view.store, view.commit)[1].moves
    head = commit_log.read(view.store, view.commit)[0]
    commit_log.publish(
        view.store,
        commit_log.Entry(number=head.number + 1, previous=head.sha256, kind="forget", site="a"),
    )
    assert [fault.what[:24] for fault in filled.verify()] == ["it still has erased rows"]
    assert Zoo.open(place).verify() == ()
    assert not view.store.exists(shards.name(move.sha256))


def test_a_site_that_came_back_keeps_its_new_rows(filled: Zoo):
    filled.forget("a")
    filled.append(new_records("7/a/0"))
    filled.append(new_records("8/a/0"))
    filled.compact()
    assert keys_of(filled.snapshot().records(site="a")) == ["7/a/0", "8/a/0"]
    require_numbers(filled, filled.snapshot().records())
    filled.forget("a")
    assert filled.verify() == ()


def test_equal_rows_of_two_sites_and_two_rounds_stay_apart(place: Place):
    zoo = new_zoo(place)
    one = new_record("0/a/0")
    for key in ("0/a/0", "1/a/0", "0/b/0"):
        zoo.append([new_record(key, weights=one.weights, context=one.context)])
    zoo.append(new_records("2/a/0"))
    zoo.compact()
    view = zoo.snapshot()
    places = {record.key: record.row for record in view.records()}
    assert places == {"0/a/0": 0, "1/a/0": 1, "0/b/0": 2, "2/a/0": 3}
    np.testing.assert_array_equal(view.weights(view.records())[:3], [one.weights] * 3)
    assert zoo.verify() == ()
    zoo.forget("a")
    assert zoo.verify() == ()
    np.testing.assert_array_equal(view.weights(view.records(site="b")), [one.weights])
    zoo.forget("b")
    assert view.store.names("shards") == []


def test_a_copy_follows_through_merges_and_erasures(place: Place, filled: Zoo, tmp_path: Path):
    early, late = tmp_path / "early", tmp_path / "late"
    filled.copy_to(early)
    filled.compact()
    for copy in (early, late):
        filled.copy_to(copy)
        assert len(shard_files(copy)) == 1
        require_numbers(Zoo.open(copy), filled.snapshot().records())
    filled.forget("a")
    filled.copy_to(early)
    for copy in (Zoo.open(early), Zoo.open(late)):
        assert copy.verify() == ()
    assert len(shard_files(early)) == 1


def test_a_damaged_row_is_not_taken_over_and_nothing_is_deleted(path: Path):
    zoo = new_zoo(path)
    for key in KEYS[:4]:
        zoo.append(new_records(key))
    before = shard_files(path)
    damaged = before[2]
    flip_bit(damaged, damaged.stat().st_size - 1)
    with pytest.raises(ZooError, match=f"{damaged.name}, row 0: the shard is damaged"):
        zoo.compact()
    assert set(before) <= set(shard_files(path))
    assert zoo.snapshot().commit == 4
    flip_bit(damaged, damaged.stat().st_size - 1)
    zoo.compact()
    assert len(shard_files(path)) == 1
    require_numbers(zoo, zoo.snapshot().records())


def test_damage_of_a_large_shard_or_of_a_merge_is_found(path: Path):
    zoo = new_zoo(path)
    for key in KEYS:
        zoo.append(new_records(key))
    zoo.compact()
    stream = np.random.default_rng(0)
    for file in (*shard_files(path), path / commit_log.name(len(KEYS) + 1)):
        sound = file.read_bytes()
        for start in range(0, len(sound), 16):
            flip_bit(file, min(start + int(stream.integers(16)), len(sound) - 1))
            assert str(file.relative_to(path)) in {fault.file for fault in zoo.verify()}
            file.write_bytes(sound)
    assert zoo.verify() == ()
    large = shard_files(path)[0]
    kept = large.read_bytes()
    large.unlink()
    assert [fault.what for fault in zoo.verify()] == ["the file is missing"]
    with pytest.raises(ZooError, match="the file is missing"):
        zoo.snapshot(3).weights(zoo.snapshot(3).records())
    large.write_bytes(kept[:-4])
    assert [fault.what for fault in zoo.verify()] == ["the shard is truncated"]


@pytest.mark.parametrize(("site", "key"), [("a", "9/a/0"), ("b", "0/a/0"), ("gone", "0/gone/0")])
def test_a_merge_that_moves_what_is_not_there_is_refused(path: Path, site: str, key: str):
    zoo = new_zoo(path)
    zoo.append(new_records("0/a/0"))
    zoo.append(new_records("0/gone/0"))
    head = zoo.forget("gone")
    kept = shard_files(path)
    store = zoo.snapshot().store
    row = new_record(key)
    sha256 = shards.write(store, [row.weights], [row.context])
    moved = commit_log.MovedRows(sha256=sha256, rows=((site, key),))
    commit_log.publish(
        store,
        commit_log.Entry(
            number=head.number + 1, previous=head.sha256, kind="merge", moves=(moved,)
        ),
    )
    opened = Zoo.open(path)
    for use in (opened.snapshot, opened.compact, opened.stats):
        with pytest.raises(ZooError, match="moves a record that the log doesn't have"):
            use()
    assert f"moves {key}, which is missing" in {fault.what for fault in opened.verify()}
    assert set(kept) <= set(shard_files(path))


def test_a_merge_that_died_before_it_deleted_anything_harms_nothing(path: Path):
    zoo = new_zoo(path)
    for key in KEYS:
        zoo.append(new_records(key))
    small = {file: file.read_bytes() for file in shard_files(path)}
    zoo.compact()
    for file, data in small.items():
        file.write_bytes(data)
    opened = Zoo.open(path)
    assert opened.verify() == ()
    require_numbers(opened, opened.snapshot().records())
    assert opened.compact().files == len(KEYS)
    assert len(shard_files(path)) == 1


def test_merging_beside_writers_and_readers_loses_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(s3, "ABANDONED_AFTER_S", 3600)
    zoo = new_zoo(place)
    sites, each = ("a", "b"), 15
    writers = [spawn.Process(target=write_many, args=(place, site, each)) for site in sites]
    for writer in writers:
        writer.start()
    old = zoo.snapshot()
    while any(writer.is_alive() for writer in writers):
        zoo.compact()
        # The last snapshot's files may have gone.
        require_numbers(zoo, old.records(), old.commit)
        old = Zoo.open(place).snapshot()
    for writer in writers:
        writer.join(PATIENCE_S)
    assert [writer.exitcode for writer in writers] == [0, 0]
    zoo.compact()
    for site in sites:
        found = zoo.snapshot().records(site=site)
        assert keys_of(found) == [f"{number}/{site}/0" for number in range(each)]
        require_numbers(zoo, found)
    assert zoo.verify() == ()
    kinds = [entry.kind for _, entry in commit_log.entries(zoo.snapshot().store)]
    assert kinds.count("append") == 2 * each
    assert kinds.count("merge") > 0
