from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import threading
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np

from f2l_fed.zoo import Zoo
from f2l_fed.zoo.format import commit_log
from tests.support.waiting import PATIENCE_S
from tests.unit.f2l_fed.zoo.samples import keys_of, new_record, new_records, new_zoo, write_many

ROOT = Path(__file__).parents[4]
spawn = multiprocessing.get_context("spawn")


def read_until(path: Path, over: Event) -> None:
    """Takes snapshots and looks at every row of each; runs in a process of its own."""
    zoo = Zoo.open(path)
    last = 0
    while not over.is_set():
        view = zoo.snapshot()
        assert view.commit >= last
        records = view.records()
        assert {record.commit for record in records} == set(range(1, view.commit + 1))
        chosen = records[-50:]
        for record, row in zip(chosen, view.weights(chosen), strict=True):
            np.testing.assert_array_equal(row, new_record(record.key).weights)
        last = view.commit


def test_eight_racing_processes_lose_none_of_1600_commits_and_no_reader_sees_half_of_one(
    ram: Path,
):
    path = ram / "zoo"
    zoo = new_zoo(path)
    over = spawn.Event()
    sites = [f"site-{number}" for number in range(8)]
    reader = spawn.Process(target=read_until, args=(path, over))
    writers = [spawn.Process(target=write_many, args=(path, site, 200)) for site in sites]
    for process in (reader, *writers):
        process.start()
    for writer in writers:
        writer.join(PATIENCE_S)
    over.set()
    reader.join(PATIENCE_S)
    assert [process.exitcode for process in (reader, *writers)] == [0] * 9
    records = zoo.snapshot().records()
    assert commit_log.numbers(zoo.snapshot().store) == list(range(1, 1601))
    for site in sites:
        own = [record.key for record in records if record.site == site]
        assert own == [f"{number}/{site}/0" for number in range(200)]
    assert zoo.verify() == ()


def test_racing_threads_that_bring_the_same_keys_bring_each_once(path: Path):
    zoo = new_zoo(path)
    keys = [f"{number}/a/0" for number in range(15)]

    def bring() -> None:
        own = Zoo.open(path)
        for key in keys:
            own.append(new_records(key))

    threads = [threading.Thread(target=bring) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert keys_of(zoo.snapshot().records()) == keys


def test_erasure_beside_a_writer_keeps_the_writer_s_rows(path: Path):
    zoo = new_zoo(path)
    writer = threading.Thread(target=write_many, args=(path, "a", 20))
    writer.start()
    for number in range(10):
        zoo.append(new_records(f"{number}/b/0"))
        zoo.forget("b")
    writer.join()
    view = zoo.snapshot()
    assert view.weights(view.records(site="a")).shape[0] == 20
    assert zoo.verify() == ()


def test_250_killed_writers_lose_nothing_and_leave_nothing_half_done(ram: Path):
    command = [sys.executable, "-m", "tests.unit.f2l_fed.zoo.killing", str(ram), "250", "0"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["killed"] == 250
    assert min(report["appending"], report["merging"], report["acknowledged"]) > 0
