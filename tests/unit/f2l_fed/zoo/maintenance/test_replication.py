"""A copy of a zoo beside an erasure: it waits, is refused, and never has commits of its own."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from f2l_fed.errors import ZooError
from f2l_fed.zoo import Commit, Store, Zoo
from f2l_fed.zoo.format import commit_log
from f2l_fed.zoo.maintenance import replication
from tests.support.waiting import PATIENCE_S
from tests.unit.f2l_fed.zoo.samples import new_record, new_records, new_zoo


def require_same(copy: Path, zoo: Zoo) -> None:
    """The copy has the zoo's commits, records and numbers."""
    view, expected = Zoo.open(copy).snapshot(), zoo.snapshot()
    assert (view.commit, view.records()) == (expected.commit, expected.records())
    for record, row in zip(view.records(), view.weights(view.records()), strict=True):
        np.testing.assert_array_equal(row, new_record(record.key).weights)
    assert Zoo.open(copy).verify() == ()


def test_a_copy_waits_for_an_erasure_that_is_under_way(path: Path, tmp_path: Path):
    zoo, copy = new_zoo(path), tmp_path / "copy"
    head = zoo.append(new_records("0/a/0", "0/b/0"))
    tombstone = commit_log.Entry(number=2, previous=head.sha256, kind="forget", site="a")
    commit_log.publish(zoo.snapshot().store, tombstone)

    def go_on() -> None:
        zoo.append(new_records("1/c/0"))
        Zoo.open(path)

    later = threading.Timer(0.5, go_on)
    later.start()
    zoo.copy_to(copy)
    later.join()
    assert Zoo.open(copy).verify() == ()
    zoo.append(new_records("2/c/0"))
    zoo.copy_to(copy)
    require_same(copy, zoo)


def test_a_copy_of_a_zoo_in_the_middle_of_an_erasure_is_refused_and_stays_a_copy(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(replication, "_PAUSE_S", 0)
    zoo, copy = new_zoo(path), tmp_path / "copy"
    head = zoo.append(new_records("0/a/0", "0/b/0"))
    zoo.copy_to(copy)
    tombstone = commit_log.Entry(number=2, previous=head.sha256, kind="forget", site="a")
    commit_log.publish(zoo.snapshot().store, tombstone)
    with pytest.raises(ZooError, match=r"log: an erasure is under way.*Open the zoo and copy"):
        zoo.copy_to(copy)
    assert Zoo.open(copy).snapshot().commit == 1
    zoo.append(new_records("1/c/0"))
    finished = Zoo.open(path)
    assert finished.copy_to(copy).number == finished.snapshot().commit == 4
    require_same(copy, finished)


def test_who_opens_a_copy_while_it_is_made_finishes_no_erasure_in_it(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    zoo, copy = new_zoo(path), tmp_path / "copy"
    head = zoo.append(new_records("0/a/0", "0/b/0"))
    zoo.copy_to(copy)
    tombstone = commit_log.Entry(number=2, previous=head.sha256, kind="forget", site="a")
    commit_log.publish(zoo.snapshot().store, tombstone)
    zoo.append(new_records("1/c/0"))
    assert Zoo.open(path).snapshot().commit == 4
    opener, publish = threading.Thread(target=Zoo.open, args=(copy,)), commit_log.publish

    def publish_and_open(store: Store, entry: commit_log.Entry) -> Commit | None:
        done = publish(store, entry)
        if entry.kind == "forget":
            opener.start()
            # It can't end before the copy has, or ends at once with a commit of its own.
            opener.join(0.5)
        return done

    monkeypatch.setattr(commit_log, "publish", publish_and_open)
    assert zoo.copy_to(copy).number == 4
    opener.join(PATIENCE_S)
    require_same(copy, zoo)
