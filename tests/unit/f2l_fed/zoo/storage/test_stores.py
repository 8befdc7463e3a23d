"""What holds for a zoo wherever it lies: in a folder and in an object store."""

from __future__ import annotations

import errno
import multiprocessing
import os
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from f2l_fed.errors import UsageError, ZooError
from f2l_fed.zoo import Zoo
from f2l_fed.zoo.format import commit_log, shards
from f2l_fed.zoo.storage import s3
from f2l_fed.zoo.storage.store import Store
from tests.support.waiting import PATIENCE_S
from tests.unit.f2l_fed.zoo.samples import (
    CONTEXT,
    WEIGHTS,
    keys_of,
    new_record,
    new_records,
    new_zoo,
    write_many,
)

Place = Path | str
spawn = multiprocessing.get_context("spawn")


@pytest.fixture
def store(place: Place) -> Store:
    return new_zoo(place).snapshot().store


def contents(store: Store) -> bytes:
    names = [name for folder in ("log", "shards", "tmp") for name in store.names(folder)]
    return b"".join(bytes(store.get(name)) for name in names)


def test_a_name_is_given_once(store: Store):
    assert store.put_new("log/a", b"one")
    assert not store.put_new("log/a", b"two")
    assert bytes(store.get("log/a")) == b"one"
    assert store.names("log") == ["log/a"]
    assert store.find_all(["log/a", "log/b"]) == [b"one", None]
    assert store.size_bytes("log/a") == 3


def test_parts_are_read(store: Store):
    store.put_new("log/a", b"0123456789")
    assert [bytes(part) for part in store.get_ranges("log/a", [(0, 2), (7, 9)])] == [b"01", b"78"]
    assert bytes(store.get_ranges("log/a", [(8, 99)])[0]) == b"89"
    assert store.get_ranges("log/a", []) == []


def test_a_name_that_is_not_there_is_named(store: Store):
    assert not store.exists("log/a")
    store.delete("log/a")
    for read in (store.get, store.size_bytes, lambda name: store.get_ranges(name, [(0, 1)])):
        with pytest.raises(ZooError, match="log/a: the file is missing"):
            read("log/a")


def test_what_goes_in_comes_out(place: Place):
    new = [new_record(f"{n}/{site}/0") for n in range(3) for site in ("a", "b")]
    new_zoo(place).append(new)
    zoo = Zoo.open(place)
    view = zoo.snapshot()
    by_key = {record.key: record for record in view.records()}
    wanted = [new[i] for i in (5, 0, 3, 3)]
    records = [by_key[record.key] for record in wanted]
    np.testing.assert_array_equal(view.weights(records), [record.weights for record in wanted])
    np.testing.assert_array_equal(view.contexts(records), [record.context for record in wanted])
    assert zoo.verify() == ()
    with pytest.raises(ZooError, match="there is a zoo already"):
        new_zoo(place)


def test_a_new_index_knows_many_commits(place: Place):
    zoo = new_zoo(place)
    for number in range(20):
        zoo.append(new_records(f"{number}/a/0"))
    zoo.reindex()
    assert keys_of(zoo.snapshot().records()) == [f"{number}/a/0" for number in range(20)]
    assert zoo.verify() == ()


def test_an_erased_site_leaves_no_byte_of_its_rows(place: Place):
    zoo = new_zoo(place)
    gone, kept = new_record("0/a/0"), new_record("0/b/0")
    zoo.append([gone, kept])
    assert gone.weights.tobytes() in contents(zoo.snapshot().store)
    zoo.forget("a")
    left = contents(zoo.snapshot().store)
    assert gone.weights.tobytes() not in left
    assert kept.weights.tobytes() in left
    assert zoo.verify() == ()


def test_damage_is_found(place: Place):
    zoo = new_zoo(place)
    zoo.append(new_records("0/a/0", "1/a/0"))
    zoo.append(new_records("0/b/0"))
    store = zoo.snapshot().store
    sound = {name: bytes(store.get(name)) for name in store.names("shards")}
    (record,) = zoo.snapshot().records(site="b")
    name = shards.name(record.shard)
    stream = np.random.default_rng(1)
    for position in stream.choice(len(sound[name]), 8, replace=False):
        data = bytearray(sound[name])
        data[position] ^= 1 << int(stream.integers(8))
        replace(store, name, bytes(data))
        assert {fault.file for fault in zoo.verify()} == {name}
    replace(store, name, sound[name][:-4])
    assert [fault.what for fault in zoo.verify()] == ["the shard is truncated"]
    with pytest.raises(ZooError, match="the shard is truncated"):
        zoo.snapshot().weights([record])
    store.delete(name)
    assert [fault.what for fault in zoo.verify()] == ["the file is missing"]
    with pytest.raises(ZooError, match="the file is missing"):
        zoo.snapshot().weights([record])


def test_racing_writers_lose_no_commit_and_readers_see_whole_ones(s3_url: str):
    """In an object store; those in a folder race in `test_writers`."""
    place = s3_url
    zoo = new_zoo(place)
    sites = [f"site-{number}" for number in range(8)]
    each = int(os.environ.get("F2L_RACING_COMMITS", "4"))
    writers = [spawn.Process(target=write_many, args=(place, site, each)) for site in sites]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        view = zoo.snapshot()
        records = view.records()[-40:]
        for record, row in zip(records, view.weights(records), strict=True):
            np.testing.assert_array_equal(row, new_record(record.key).weights)
        time.sleep(0.05)
    for writer in writers:
        writer.join(PATIENCE_S + 5 * each)
    assert [writer.exitcode for writer in writers] == [0] * 8
    assert commit_log.numbers(zoo.snapshot().store) == list(range(1, 8 * each + 1))
    assert len(zoo.snapshot().records()) == 8 * each
    assert zoo.verify() == ()


def test_an_acknowledgement_that_got_lost_is_no_lost_race(place: Place):
    zoo = new_zoo(place)
    commit = zoo.append(new_records("0/a/0"))
    store = zoo.snapshot().store
    assert commit_log.publish(store, commit_log.read(store, 1)[1]) == commit


def test_an_object_store_keeps_young_shards_that_a_writer_may_be_about_to_name(
    s3_url: str, monkeypatch: pytest.MonkeyPatch
):
    zoo = new_zoo(s3_url)
    zoo.append(new_records("0/a/0"))
    store = zoo.snapshot().store
    stray = shards.write(
        store, np.ones((1, WEIGHTS), np.float32), np.ones((1, CONTEXT), np.float32)
    )
    zoo.forget("a")
    assert store.names("shards") == [shards.name(stray)]
    assert zoo.verify() == ()
    monkeypatch.setattr(s3, "ABANDONED_AFTER_S", -timedelta(minutes=1).total_seconds())
    assert zoo.compact().files == 1
    assert store.names("shards") == store.names("tmp") == []


def test_an_object_store_that_is_not_there_is_one_sentence(
    s3_url: str, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(ZooError, match=f"{s3_url}/zoo.json: not a zoo"):
        Zoo.open(s3_url)
    with pytest.raises(UsageError, match="not the address of a zoo: expected a folder or s3://"):
        Zoo.open("http://bucket/zoo")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(s3, "_RETRIES", {"max_retries": 0, "retry_timeout": timedelta(seconds=1)})
    with pytest.raises(
        ZooError, match=r"the request to the object store failed: got .* Check bucket, endpoint"
    ):
        Zoo.open(s3_url)


def replace(store: Store, name: str, data: bytes) -> None:
    store.delete(name)
    store.put_new(name, data)


def test_a_file_system_without_hard_links_is_named_with_the_remedy(tmp_path, monkeypatch):
    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    zoo = new_zoo(tmp_path / "zoo")
    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(ZooError, match=r"this file system has no hard links.* on a local disk"):
        zoo.append([new_record("1/site-0/0")])
