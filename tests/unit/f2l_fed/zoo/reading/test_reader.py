from __future__ import annotations

from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest

from f2l_fed.errors import RecordErased, UsageError, ZooError
from f2l_fed.zoo import Position, Query, Reader, Zoo
from f2l_fed.zoo.format import shards
from f2l_fed.zoo.storage.s3 import S3Store
from tests.unit.f2l_fed.zoo.samples import (
    CONTEXT,
    WEIGHTS,
    flip_bit,
    keys_of,
    new_record,
    new_records,
    new_zoo,
    shard_files,
)

ROW_BYTES = 4 * (WEIGHTS + CONTEXT)


@pytest.fixture
def filled(place: Path | str) -> Zoo:
    """37 rows of three sites in shards of one to five rows."""
    zoo = new_zoo(place)
    numbers = iter(range(37))
    for size in (3, 1, 7, 12, 2, 12):
        zoo.append([new_record(f"{n}/{'abc'[n % 3]}/0") for n in islice(numbers, size)])
    return zoo


def reader(zoo: Zoo, **options: object) -> Reader:
    settings = {"batch_size": 4, "window_bytes": 8 * ROW_BYTES, **options}
    return Reader(zoo.snapshot(), **settings)  # type: ignore[arg-type]


def reads(open_reader: Reader) -> list[np.ndarray]:
    return [batch.weights for batch in open_reader.epoch()]


def keys(batches: object) -> list[str]:
    return [record.key for batch in batches for record in batch.records]  # type: ignore[attr-defined]


def test_every_row_comes_once_with_its_own_numbers(filled: Zoo):
    for seed in (None, 5):
        batches = list(reader(filled, seed=seed).epoch())
        assert [len(batch) for batch in batches] == [4] * 9 + [1]
        assert sorted(keys(batches)) == sorted(keys_of(filled.snapshot().records()))
        for batch in batches:
            for record, w, c in zip(batch.records, batch.weights, batch.contexts, strict=True):
                np.testing.assert_array_equal(w, new_record(record.key).weights)
                np.testing.assert_array_equal(c, new_record(record.key).context)


def test_without_a_seed_rows_come_in_the_order_of_the_log(filled: Zoo):
    assert keys(reader(filled).epoch()) == keys_of(filled.snapshot().records())


def test_the_order_follows_from_seed_and_epoch(filled: Zoo):
    orders = {
        (seed, epoch): tuple(keys(reader(filled, seed=seed).epoch(Position(epoch=epoch))))
        for seed in (1, 2)
        for epoch in (0, 1)
    }
    assert len(set(orders.values())) == 4
    assert tuple(keys(reader(filled, seed=2).epoch(Position(epoch=1)))) == orders[2, 1]


def test_a_window_that_holds_all_rows_mixes_all_shards(filled: Zoo):
    mixed = reader(filled, seed=0, window_bytes=1 << 20)
    first = next(mixed.epoch()).records
    assert len({record.shard for record in first}) > 1


def test_ranks_share_the_rows_without_overlap(filled: Zoo):
    shares = [keys(reader(filled, seed=3, rank=rank, ranks=3).epoch()) for rank in range(3)]
    assert sorted(chain.from_iterable(shares)) == sorted(keys_of(filled.snapshot().records()))
    even = [list(reader(filled, seed=3, rank=r, ranks=4, even=True).epoch()) for r in range(4)]
    assert [[len(batch) for batch in share] for share in even] == [[4, 4]] * 4
    assert len({key for share in even for key in keys(share)}) == 32


def test_reading_goes_on_where_it_stopped(filled: Zoo):
    for options in ({}, {"rank": 1, "ranks": 2}):
        whole = list(reader(filled, seed=4, **options).epoch())
        for stopped in range(0, len(whole) - 1, 3):
            rest = reader(filled, seed=4, **options).epoch(whole[stopped].next)
            assert keys(rest) == keys(whole[stopped + 1 :])
    last = list(reader(filled, seed=4).epoch())[-1]
    assert last.next == Position(epoch=1)


def test_reading_ahead_changes_nothing(filled: Zoo):
    plain, ahead = (list(reader(filled, seed=4, ahead=n).epoch()) for n in (0, 3))
    for one, other in zip(plain, ahead, strict=True):
        np.testing.assert_array_equal(one.weights, other.weights)
        assert one.next == other.next
    filled.forget("a")
    with pytest.raises(RecordErased):
        next(reader_of_the_past(filled, ahead=3).epoch())


def reader_of_the_past(zoo: Zoo, **options: object) -> Reader:
    return Reader(zoo.snapshot(3), batch_size=4, **options)  # type: ignore[arg-type]


def test_only_the_rows_of_the_snapshot_and_the_query_come(filled: Zoo):
    chosen = Reader(filled.snapshot(3), Query(site="b"), batch_size=100)
    expected = keys_of(filled.snapshot(3).records(site="b"))
    filled.append(new_records("99/b/0"))
    assert keys(chosen.epoch()) == expected
    assert len(chosen) == len(expected) == 4
    assert list(Reader(filled.snapshot(), Query(site="x"), batch_size=1, seed=0).epoch()) == []


def test_rows_that_were_erased_since_cannot_be_read(filled: Zoo):
    batches = reader(filled, seed=0, window_bytes=1).epoch()
    next(batches)
    filled.forget("b")
    with pytest.raises(RecordErased, match="of site b: the record was erased"):
        [batch.weights for batch in batches]


def test_a_damaged_row_is_named(path: Path):
    zoo = new_zoo(path)
    zoo.append(new_records("0/a/0", "1/a/0"))
    (file,) = shard_files(path)
    flip_bit(file, len(shards.header(2, WEIGHTS, CONTEXT)) + 4 * WEIGHTS + 1)
    with pytest.raises(ZooError, match="row 1: the shard is damaged"):
        reads(reader(zoo))
    assert len(reads(reader(zoo, check=False))) == 1


def test_a_row_is_checked_when_it_is_first_read(path: Path):
    zoo = new_zoo(path)
    zoo.append(new_records("0/a/0", "1/a/0"))
    open_reader = reader(zoo)
    reads(open_reader)
    (file,) = shard_files(path)
    flip_bit(file, -1)
    reads(open_reader)
    with pytest.raises(ZooError, match="the shard is damaged"):
        [batch.contexts for batch in reader(zoo).epoch()]


def test_rows_side_by_side_are_not_copied(path: Path):
    zoo = new_zoo(path)
    zoo.append(new_records(*(f"{number}/a/0" for number in range(8))))
    for batch in reader(zoo).epoch():
        assert not batch.weights.flags.owndata
        assert not batch.weights.flags.writeable


def test_an_object_store_is_asked_for_parts_of_shards(s3_url: str, monkeypatch: pytest.MonkeyPatch):
    zoo = new_zoo(s3_url)
    zoo.append(new_records(*(f"{number}/a/0" for number in range(50))))
    monkeypatch.delattr(S3Store, "get")
    (batch,) = reader(zoo, batch_size=1, rank=7, ranks=50).epoch()
    np.testing.assert_array_equal(batch.weights[0], new_record("7/a/0").weights)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"ranks": 0}, {"rank": 2, "ranks": 2}])
def test_a_reader_that_cannot_be_is_refused(zoo: Zoo, options: dict[str, object]):
    with pytest.raises(UsageError, match="invalid batch size or rank"):
        reader(zoo, **options)
