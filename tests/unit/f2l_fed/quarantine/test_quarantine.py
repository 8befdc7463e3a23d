"""The quarantine: nothing is lost, nothing is kept twice, nothing comes back once dropped."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from f2l_fed.admission import Finding, Verdict
from f2l_fed.errors import ZooError
from f2l_fed.quarantine.quarantine import Quarantine
from tests.support.waiting import PATIENCE_S
from tests.unit.f2l_fed.zoo.samples import new_records, new_zoo

LONG = Verdict.of(
    [Finding(code="long", action="quarantine", figures={"norm": 9.0, "max_allowed": 2.0})]
)


@pytest.fixture
def zoo(tmp_path):
    return new_zoo(tmp_path / "zoo")


@pytest.fixture
def quarantine(tmp_path):
    return Quarantine(tmp_path / "quarantine")


def put(quarantine, site="a", round_=1, time_s=5.0):
    records = new_records(f"{round_}/{site}/0", f"{round_}/{site}/1")
    return quarantine.put(records, LONG, lineage="tiny", time_s=time_s)


def test_an_empty_quarantine_has_no_folder_and_lists_nothing(quarantine):
    assert quarantine.list() == ()
    assert not quarantine.root.exists()
    with pytest.raises(ZooError, match="no such entry"):
        quarantine.get("abcdef")


def test_what_is_put_aside_can_be_read_back_to_the_bit(quarantine, tmp_path):
    entry = put(quarantine)
    again = Quarantine(tmp_path / "quarantine")
    assert again.list() == (entry,)
    assert again.get(entry.id[:6]) == entry
    assert entry.verdict == LONG
    for record, given in zip(again.records(entry), new_records("1/a/0", "1/a/1"), strict=True):
        assert (record.key, record.site, record.round) == (given.key, given.site, given.round)
        assert np.array_equal(record.weights, given.weights)
        assert np.array_equal(record.context, given.context)
        assert record.metrics == given.metrics


def test_the_same_submission_twice_has_one_entry(quarantine):
    assert put(quarantine, time_s=5.0) == put(quarantine, time_s=9.0)
    assert len(quarantine.list()) == 1


def test_the_list_is_by_time_and_can_be_of_one_site(quarantine):
    late, early = put(quarantine, "a", time_s=9.0), put(quarantine, "b", time_s=1.0)
    assert quarantine.list() == (early, late)
    assert quarantine.list(site="a") == (late,)


def test_a_released_submission_is_in_the_zoo_and_nowhere_else(quarantine, zoo):
    entry = put(quarantine)
    commit = quarantine.release(entry.id, zoo)
    assert commit.rows == 2
    assert [r.key for r in zoo.snapshot().records()] == ["1/a/0", "1/a/1"]
    assert zoo.verify() == ()
    assert quarantine.list() == ()
    assert list((quarantine.root / "shards").iterdir()) == []


def test_a_release_that_was_interrupted_can_be_repeated(quarantine, zoo):
    entry = put(quarantine)
    zoo.append(quarantine.records(entry))
    quarantine.release(entry.id, zoo)
    assert len(zoo.snapshot().records()) == 2


def test_a_submission_is_only_released_to_its_own_lineage(quarantine, zoo):
    entry = quarantine.put(new_records("1/a/0"), LONG, lineage="other", time_s=1.0)
    with pytest.raises(ZooError, match="lineage"):
        quarantine.release(entry.id, zoo)
    assert quarantine.list() == (entry,)


def test_a_dropped_submission_is_gone_with_its_networks(quarantine):
    first, second = put(quarantine, "a"), put(quarantine, "b")
    quarantine.drop(first.id)
    assert quarantine.list() == (second,)
    assert [path.stem for path in (quarantine.root / "shards").iterdir()] == [second.shard]
    with pytest.raises(ZooError, match="no such entry"):
        quarantine.drop(first.id)


def test_forgetting_a_site_removes_all_of_it(quarantine):
    put(quarantine, "a", 1), put(quarantine, "a", 2)
    other = put(quarantine, "b")
    assert quarantine.forget("a") == 2
    assert quarantine.list() == (other,)


def files_in(folder: Path) -> list[str]:
    """Names of all files but the lock."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != "lock")


def test_forgetting_a_site_removes_what_dead_writers_left(quarantine):
    # What a kill leaves between shard and entry, and between an entry's removal and its shard's.
    (quarantine.root / f"held/{put(quarantine, 'a').id}.json").unlink()
    (quarantine.root / "tmp/unfinished").write_bytes(b"networks of a")
    other = put(quarantine, "b")
    assert quarantine.forget("a") == 0
    assert files_in(quarantine.root) == sorted([f"{other.id}.json", f"{other.shard}.safetensors"])
    assert len(quarantine.records(other)) == 2


def test_an_erasure_that_died_is_told_by_its_entries_and_can_be_repeated(quarantine):
    entry = put(quarantine, "a")
    (quarantine.root / f"shards/{entry.shard}.safetensors").unlink()
    assert quarantine.list(site="a") == (entry,)
    assert quarantine.forget("a") == 1
    assert files_in(quarantine.root) == []


def test_what_a_living_writer_has_not_named_yet_is_not_removed(quarantine):
    put(quarantine, "b")
    shard = quarantine.root / "shards/unnamed.safetensors"
    with ThreadPoolExecutor() as pool:
        with quarantine._store.lock(shared=True):
            shard.write_bytes(b"of a writer that is at work")
            forgetting = pool.submit(quarantine.forget, "a")
            with pytest.raises(TimeoutError):
                forgetting.result(0.2)
            assert shard.exists()
        assert forgetting.result(PATIENCE_S) == 0
    assert not shard.exists()


def test_a_writer_waits_for_an_erasure_with_its_shard(quarantine):
    put(quarantine, "b")
    with ThreadPoolExecutor() as pool:
        with quarantine._store.lock(shared=False):
            before = files_in(quarantine.root)
            putting = pool.submit(put, quarantine, "a")
            with pytest.raises(TimeoutError):
                putting.result(0.2)
            assert files_in(quarantine.root) == before
        assert putting.result(PATIENCE_S) in quarantine.list()


def test_writers_do_not_wait_for_each_other(quarantine):
    put(quarantine, "b")
    with quarantine._store.lock(shared=True), ThreadPoolExecutor() as pool:
        assert pool.submit(put, quarantine, "a").result(PATIENCE_S).site == "a"


def test_the_list_leaves_out_what_goes_while_it_is_read(quarantine, monkeypatch):
    going, staying = put(quarantine, "a"), put(quarantine, "b")
    names = quarantine._store.names

    def names_before_a_drop(folder):
        found = names(folder)
        (quarantine.root / f"held/{going.id}.json").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(quarantine._store, "names", names_before_a_drop)
    assert quarantine.list() == (staying,)


def test_lists_and_drops_at_the_same_time_disturb_nobody(quarantine):
    put(quarantine, "b")
    done = threading.Event()

    def put_and_drop():
        try:
            for _ in range(20):
                quarantine.drop(put(quarantine, "a").id)
        finally:
            done.set()

    with ThreadPoolExecutor() as pool:
        working = pool.submit(put_and_drop)
        while not done.is_set():
            assert {entry.site for entry in quarantine.list()} <= {"a", "b"}
        working.result()


def damage(quarantine: Quarantine, entry) -> None:
    path = quarantine.root / f"held/{entry.id}.json"
    path.write_bytes(path.read_bytes()[:-9])


def test_a_damaged_entry_says_how_to_drop_it_and_can_be_dropped(quarantine):
    broken, sound = put(quarantine, "a"), put(quarantine, "b")
    damage(quarantine, broken)
    with pytest.raises(ZooError, match=f"truncated.* quarantine drop FOLDER {broken.id} --yes"):
        quarantine.list()
    quarantine.drop(broken.id[:6])
    assert quarantine.list() == (sound,)
    assert files_in(quarantine.root) == sorted([f"{sound.id}.json", f"{sound.shard}.safetensors"])


def test_networks_of_a_damaged_entry_stay_until_it_is_dropped(quarantine):
    broken, gone = put(quarantine, "a"), put(quarantine, "b")
    damage(quarantine, broken)
    quarantine.drop(gone.id)
    assert files_in(quarantine.root) == sorted([f"{broken.id}.json", f"{broken.shard}.safetensors"])


def test_nothing_is_forgotten_by_halves_where_an_entry_is_damaged(quarantine):
    mine, broken = put(quarantine, "a"), put(quarantine, "b")
    damage(quarantine, broken)
    before = files_in(quarantine.root)
    with pytest.raises(ZooError, match=f"drop FOLDER {broken.id}"):
        quarantine.forget("a")
    assert files_in(quarantine.root) == before
    quarantine.drop(broken.id)
    assert quarantine.list(site="a") == (mine,)
    assert quarantine.forget("a") == 1


def test_damage_is_named_and_never_released(quarantine, zoo):
    entry = put(quarantine)
    shard = quarantine.root / f"shards/{entry.shard}.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ZooError, match="damaged"):
        quarantine.release(entry.id, zoo)
    path = quarantine.root / f"held/{entry.id}.json"
    path.write_text(path.read_text().replace('"round":1', '"round":2'))
    with pytest.raises(ZooError, match="damaged"):
        quarantine.list()
    assert zoo.snapshot().records() == ()


@pytest.mark.parametrize("id", ["", "abc", "../../x", "zz*z"])
def test_an_id_that_is_none_is_refused(quarantine, id):
    put(quarantine)
    with pytest.raises(ZooError, match="no such entry"):
        quarantine.get(id)
