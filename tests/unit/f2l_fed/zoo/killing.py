"""Writers that are killed at random, again and again: ``python -m tests.unit.f2l_fed.zoo.killing``.

A program of its own, so that a writer is a fork of a small process and a kill costs milliseconds.
How long a writer may live is measured, so that a slow machine kills as evenly as a fast one.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Iterable
from itertools import count
from pathlib import Path

from f2l_fed.zoo import Zoo
from tests.unit.f2l_fed.zoo.samples import new_record, new_records, new_zoo

LIVES_PER_ZOO = 25
# An erasure and a merge follow every so many appends.
APPENDS = 3
# One in so many is killed while it opens the zoo.
EARLY = 6


def live(path: Path, life: int, acknowledge: int, numbers: Iterable[int]) -> None:
    """Appends and erases once a number, and tells what is done in lines."""
    zoo = Zoo.open(path)
    os.write(acknowledge, b"open\n")
    for number in numbers:
        keys = [f"{number}/{site}/{life}" for site in ("kept", "gone")]
        os.write(acknowledge, f"begin {' '.join(keys)}\n".encode())
        zoo.append(new_records(*keys))
        os.write(acknowledge, f"append {' '.join(keys)}\n".encode())
        if number % APPENDS == APPENDS - 1:
            os.write(acknowledge, b"erase\n")
            zoo.forget("gone")
            os.write(acknowledge, b"forget\n")
            os.write(acknowledge, b"merge\n")
            zoo.compact()


def longest_life(folder: Path) -> float:
    """Seconds that a writer needs here until it has merged once (the median of three)."""
    seconds = []
    with Path(os.devnull).open("wb") as nobody:
        for number in range(3):
            path = folder / f"calm-{number}"
            new_zoo(path)
            begun = time.perf_counter()
            live(path, 0, nobody.fileno(), range(APPENDS))
            seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def lines_of_a_killed_life(path: Path, life: int, seconds: float) -> list[str]:
    """What a writer told before it was killed, so many seconds after it had opened the zoo."""
    ours, theirs = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            live(path, life, theirs, count())
        finally:
            os._exit(1)
    os.close(theirs)
    if life % EARLY:
        select.select([ours], [], [], 60)
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL, "the writer had ended by itself"
    with os.fdopen(ours) as pipe:
        return pipe.read().splitlines()


def main(folder: Path, lives: int, seed: int) -> dict[str, int]:
    """Kills ``lives`` writers and looks at the zoo after each.

    Returns:
        How many were killed, in the middle of what, and how many appends they acknowledged.
    """
    chance = random.Random(seed)
    longest = longest_life(folder)
    report = {"killed": 0, "appending": 0, "erasing": 0, "merging": 0, "acknowledged": 0}
    for life in range(lives):
        path = folder / f"zoo-{life // LIVES_PER_ZOO}"
        if life % LIVES_PER_ZOO == 0:
            shutil.rmtree(folder / f"zoo-{life // LIVES_PER_ZOO - 1}", ignore_errors=True)
            new_zoo(path)
            # Keys that must be there; keys that may be; those of the erased site go when erased.
            must: set[str] = set()
            may: set[str] = set()
        what = ""
        for line in lines_of_a_killed_life(path, life, chance.uniform(0, longest)):
            what, *keys = line.split()
            if what == "open":
                continue
            if what == "begin":
                may.update(keys)
            elif what == "append":
                must.update(keys)
                report["acknowledged"] += 1
            elif what == "erase":
                must = {key for key in must if "/gone/" not in key}
            elif what == "forget":
                may = {key for key in may if "/gone/" not in key}
        report["killed"] += 1
        report["appending"] += what == "begin"
        report["erasing"] += what == "erase"
        report["merging"] += what == "merge"
        require_whole(path, must, may, anew=life % 5 == 0)
    return report


def require_whole(path: Path, must: set[str], may: set[str], *, anew: bool) -> None:
    zoo = Zoo.open(path)
    assert zoo.verify() == (), zoo.verify()
    view = zoo.snapshot()
    records = view.records()
    keys = {record.key for record in records}
    assert must <= keys <= may, (must - keys, keys - may)
    for record, row in zip(records, view.weights(records), strict=True):
        assert row.tobytes() == new_record(record.key).weights.tobytes()
    if anew:
        zoo.reindex()
        assert zoo.snapshot().records() == records
        assert zoo.verify() == ()


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
