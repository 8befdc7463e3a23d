"""A zoo says what a dictionary would, whatever is appended, erased and merged in what order."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from f2l_fed.errors import RecordErased
from f2l_fed.zoo import Reader, Zoo
from f2l_fed.zoo.maintenance import compaction
from tests.unit.f2l_fed.zoo.samples import CONTEXT, WEIGHTS, new_record, new_zoo

sites = st.sampled_from("abc")


class ZooAndDictionary(RuleBasedStateMachine):
    """The dictionary has, for each commit, the keys that were there, in order."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")
        self.root = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
        self.zoo = new_zoo(self.root / "zoo")
        self.kept: list[str] = []
        self.seen: dict[int, list[str]] = {0: []}
        self.number = 0
        self.max_bytes = compaction.MAX_BYTES
        compaction.MAX_BYTES = 5 * 4 * (WEIGHTS + CONTEXT)

    def teardown(self) -> None:
        compaction.MAX_BYTES = self.max_bytes
        shutil.rmtree(self.root)

    def _note(self) -> None:
        self.seen[self.zoo.snapshot().commit] = list(self.kept)

    @rule(chosen=st.lists(sites, min_size=1, max_size=4))
    def append(self, chosen: list[str]) -> None:
        keys = [f"{self.number + place}/{site}/0" for place, site in enumerate(chosen)]
        self.number += len(keys)
        self.zoo.append([new_record(key) for key in keys])
        # A commit's records come by site.
        first = {site: place for place, site in reversed(list(enumerate(chosen)))}
        self.kept += sorted(keys, key=lambda key: first[key.split("/")[1]])
        self._note()

    @rule(site=sites)
    def forget(self, site: str) -> None:
        if self.zoo.snapshot().records(site=site):
            self.zoo.forget(site)
            self.kept = [key for key in self.kept if f"/{site}/" not in key]
            self._note()

    @rule()
    def compact(self) -> None:
        self.zoo.compact()
        self._note()

    @rule()
    def open_anew(self) -> None:
        self.zoo = Zoo.open(self.root / "zoo")

    @rule()
    def reindex(self) -> None:
        self.zoo.reindex()

    @rule()
    def copy(self) -> None:
        self.zoo.copy_to(self.root / "copy")
        copy = Zoo.open(self.root / "copy")
        assert copy.snapshot().records() == self.zoo.snapshot().records()
        assert copy.verify() == ()

    @rule(data=st.data())
    def read_an_old_snapshot(self, data: st.DataObject) -> None:
        commit = data.draw(st.sampled_from(sorted(self.seen)))
        view = self.zoo.snapshot(commit)
        records = view.records()
        assert [record.key for record in records] == self.seen[commit]
        gone = [record for record in records if record.key not in self.kept]
        if gone:
            try:
                view.weights(gone)
            except RecordErased:
                return
            raise AssertionError("erased rows were read")
        found: list[str] = []
        for batch in Reader(view, batch_size=3, seed=0).epoch():
            for record, row in zip(batch.records, batch.weights, strict=True):
                np.testing.assert_array_equal(row, new_record(record.key).weights)
                found.append(record.key)
        assert sorted(found) == sorted(self.seen[commit])

    @invariant()
    def it_is_sound(self) -> None:
        assert [record.key for record in self.zoo.snapshot().records()] == self.kept
        assert self.zoo.verify() == ()


TestZooAndDictionary = ZooAndDictionary.TestCase
TestZooAndDictionary.settings = settings(deadline=None, max_examples=25, stateful_step_count=15)
