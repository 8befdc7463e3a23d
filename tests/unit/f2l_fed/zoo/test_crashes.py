"""The machine dies, or the disk refuses, at every single step of a life of a zoo."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from f2l_fed.errors import ZooError
from f2l_fed.zoo import LocalStore, Zoo
from f2l_fed.zoo.format import commit_log
from tests.unit.f2l_fed.zoo.disk import Disk
from tests.unit.f2l_fed.zoo.samples import new_record, new_records, new_zoo

APPENDS = (("0/a/0",), ("0/b/0", "1/b/0", "0/c/0"), ("2/a/0", "2/c/0"), ("3/d/0",))
GONE = "b"


@dataclass
class Life:
    """What a zoo's user has begun and what the zoo has acknowledged."""

    zoo: Zoo
    begun: int = 0
    acknowledged: set[tuple[str, ...]] = field(default_factory=set)
    erasing: bool = False
    erased: bool = False

    def steps(self) -> list[Callable[[], None]]:
        def append(keys: tuple[str, ...]) -> Callable[[], None]:
            def step() -> None:
                self.begun += 1
                self.zoo.append(new_records(*keys))
                self.acknowledged.add(keys)

            return step

        def forget() -> None:
            self.erasing = True
            self.zoo.forget(GONE)
            self.erased = True

        def compact() -> None:
            self.zoo.compact()

        first, second, third, fourth = map(append, APPENDS)
        return [first, second, forget, third, compact, fourth]


def require_whole(life: Life, zoo: Zoo, path: Path) -> None:
    """All that was acknowledged is there, each append wholly or not at all, nothing else."""
    records = zoo.snapshot().records()
    keys = {record.key for record in records}
    forgotten = GONE in zoo.stats().forgotten
    assert forgotten or not life.erased
    assert life.erasing or not forgotten
    for number, appended in enumerate(APPENDS):
        expected = {key for key in appended if not (forgotten and f"/{GONE}/" in key)}
        found = keys & set(appended)
        assert found in (set(), expected)
        assert found or appended not in life.acknowledged or not expected
        assert not found or number < life.begun
    rows = zoo.snapshot().weights(records)
    for record, row in zip(records, rows, strict=True):
        assert row.tobytes() == new_record(record.key).weights.tobytes()
    assert zoo.verify() == ()
    if forgotten:
        content = b"".join(file.read_bytes() for file in path.rglob("*") if file.is_file())
        for key in APPENDS[1]:
            assert (new_record(key).weights.tobytes() in content) == (f"/{GONE}/" not in key)


def test_a_killed_process_or_a_power_cut_after_any_step_loses_nothing(ram: Path):
    begun, image = ram / "zoo", ram / "image"
    life = Life(zoo=new_zoo(begun))
    seen: set[str] = set()

    def die(number: int, call: str) -> None:
        seen.add(call)
        for left in (disk.best, disk.worst):
            left(image)
            zoo = Zoo.open(image)
            require_whole(life, zoo, image)
            before = zoo.snapshot().commit
            assert zoo.append(new_records("9/after/0")).number == before + 1
            if number % 5 == 0:
                zoo.reindex()
                assert zoo.verify() == ()
            shutil.rmtree(image)

    disk = Disk(begun, between=die)
    with disk.watched():
        for step in life.steps():
            step()
            die(disk.calls, "return")
    assert seen == {"open", "write", "fsync", "link", "unlink", "return"}
    merges = [e.moves for _, e in commit_log.entries(LocalStore(begun)) if e.kind == "merge"]
    assert [sorted(moves[0].sites) for moves in merges] == [["c"], ["a", "c"]]
    assert disk.calls > 100
    assert life.acknowledged == set(APPENDS)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (errno.ENOSPC, "no space left to write"),
        (errno.EROFS, "not writable"),
        (errno.EIO, "the file system failed"),
    ],
)
def test_a_disk_that_refuses_any_one_step_is_named_and_loses_nothing(
    ram: Path, error: int, message: str
):
    # Every third call with each error, to spend the time once.
    number, last = 1 + (errno.ENOSPC, errno.EROFS, errno.EIO).index(error), 100
    while number <= last:
        path = ram / str(number)
        new_zoo(path)
        life = Life(zoo=Zoo.open(path))
        disk, refused = Disk(path, refuse=(number, error)), 0
        for step in life.steps():
            with disk.watched():
                try:
                    step()
                    continue
                except ZooError as found:
                    said = str(found)
            assert message in said, number
            refused += 1
            if not life.erasing:
                require_whole(life, life.zoo, path)
            step()
        # That a temporary file stays is no failure.
        assert refused <= 1
        require_whole(life, life.zoo, path)
        assert life.acknowledged == set(APPENDS)
        shutil.rmtree(path)
        number, last = number + 3, disk.calls
