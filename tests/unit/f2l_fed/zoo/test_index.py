from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from f2l_fed.zoo import Zoo
from tests.unit.f2l_fed.zoo.samples import keys_of, new_record, new_records, new_zoo


def test_the_zoo_works_when_its_index_is_deleted_at_any_time(zoo: Zoo, path: Path):
    for number in range(4):
        zoo.append(new_records(f"{number}/a/0"))
        (path / "index.sqlite").unlink()
        assert zoo.append(new_records(f"{number}/a/0")).number == number + 1
        (path / "index.sqlite").unlink()
        assert len(zoo.snapshot().records()) == number + 1
    assert (path / "index.sqlite").exists()


@pytest.mark.parametrize("when_open", [False, True])
@pytest.mark.parametrize("garbage", [b"", b"garbage" * 999])
def test_a_garbage_index_is_rebuilt(zoo: Zoo, path: Path, garbage: bytes, when_open: bool):
    zoo.append(new_records("0/a/0", "1/a/0"))
    zoo.snapshot()
    (path / "index.sqlite").write_bytes(garbage)
    zoo = zoo if when_open else Zoo.open(path)
    assert keys_of(zoo.snapshot().records()) == ["0/a/0", "1/a/0"]
    assert zoo.verify() == ()


def test_an_index_with_a_damaged_page_is_rebuilt(zoo: Zoo, path: Path):
    zoo.append([new_record(f"{n}/{'ab'[n % 2]}/0") for n in range(60)])
    records = zoo.snapshot().records()
    sound = (path / "index.sqlite").read_bytes()
    stream = np.random.default_rng(0)
    for start in range(0, len(sound), 4096):
        data = bytearray(sound)
        data[start + 2000 : start + 4000] = stream.bytes(2000)
        (path / "index.sqlite").write_bytes(data)
        view = Zoo.open(path).snapshot()
        assert view.records() == records
        assert view.records(site="b") == records[30:]


def test_a_flipped_letter_in_the_index_is_noticed(zoo: Zoo, path: Path):
    zoo.append(new_records("0/a/0"))
    records = zoo.snapshot().records()
    data = (path / "index.sqlite").read_bytes()
    (path / "index.sqlite").write_bytes(data.replace(b"accuracy", b"accurbcy"))
    assert zoo.snapshot().records() == records


def test_an_index_of_another_zoo_is_rebuilt(zoo: Zoo, path: Path, tmp_path: Path):
    other = new_zoo(tmp_path / "other")
    other.append(new_records("0/x/0"))
    other.snapshot()
    zoo.append(new_records("0/a/0"))
    zoo.append(new_records("1/a/0"))
    shutil.copy(tmp_path / "other" / "index.sqlite", path)
    assert keys_of(Zoo.open(path).snapshot().records()) == ["0/a/0", "1/a/0"]


def test_an_index_that_is_behind_catches_up(zoo: Zoo, path: Path, tmp_path: Path):
    zoo.append(new_records("0/a/0"))
    zoo.snapshot()
    shutil.copy(path / "index.sqlite", tmp_path)
    zoo.append(new_records("1/a/0"))
    zoo.snapshot()
    shutil.copy(tmp_path / "index.sqlite", path)
    assert keys_of(Zoo.open(path).snapshot().records()) == ["0/a/0", "1/a/0"]


def test_a_forged_index_is_found_and_mended(zoo: Zoo, path: Path):
    zoo.append(new_records("0/a/0"))
    zoo.snapshot()
    with closing(sqlite3.connect(path / "index.sqlite")) as db, db:
        db.execute("UPDATE records SET round = 5")
    assert [fault.file for fault in zoo.verify()] == ["index.sqlite"]
    zoo.reindex()
    assert zoo.verify() == ()
    assert len(zoo.snapshot().records(round=0)) == 1
