from __future__ import annotations

import multiprocessing
import threading
import time
from pathlib import Path

import numpy as np

from f2l_fed.zoo import Zoo, log
from tests.unit.zoo.samples import (
    keys_of,
    new_records,
    new_zoo,
    write_many,
    write_until_killed,
)

spawn = multiprocessing.get_context("spawn")


def test_two_racing_processes_lose_no_commit(path: Path):
    zoo = new_zoo(path)
    writers = [spawn.Process(target=write_many, args=(path, site, 30)) for site in ("a", "b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    records = zoo.snapshot().records()
    assert log.numbers(zoo.snapshot().store) == list(range(1, 61))
    for site in ("a", "b"):
        own = [record.key for record in records if record.site == site]
        assert own == [f"{number}/{site}/0" for number in range(30)]
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


def test_what_a_killed_writer_acknowledged_is_there(path: Path):
    new_zoo(path)
    stream = np.random.default_rng(0)
    acknowledged: list[str] = []
    for attempt in range(4):
        ours, theirs = spawn.Pipe(duplex=False)
        writer = spawn.Process(target=write_until_killed, args=(path, f"site-{attempt}", theirs))
        writer.start()
        theirs.close()
        acknowledged.append(ours.recv())
        time.sleep(stream.uniform(0, 0.05))
        writer.kill()
        writer.join()
        while True:
            try:
                acknowledged.append(ours.recv())
            except EOFError:
                break
        ours.close()
        zoo = Zoo.open(path)
        assert zoo.verify() == ()
        assert set(acknowledged) <= set(keys_of(zoo.snapshot().records()))
    number = zoo.snapshot().commit
    assert zoo.append(new_records("0/after/0")).number == number + 1
