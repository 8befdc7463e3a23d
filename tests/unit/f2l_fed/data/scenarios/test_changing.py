"""The changing scenario, and the sites of a partition after some rounds."""

from __future__ import annotations

import numpy as np
import pytest

from f2l_fed.core.random_streams import stream
from f2l_fed.data import Partition, SplitConfig, partition
from f2l_fed.data.dataset import as_dataset

SMALL = SplitConfig(
    ways=3,
    shots=4,
    validation_fraction=0,
    validation_per_class=2,
    minimum_examples=1,
    held_out_shots=2,
    test_per_class=3,
)


def split(scenario: str) -> Partition:
    y = np.repeat(np.arange(6), 40)
    data = as_dataset("made", stream(0, "made").random((len(y), 1, 8, 8)), y, None)
    return partition(scenario, [data], sites=10, held_out=2, seed=0, config=SMALL)


@pytest.mark.parametrize(("scenario", "shared"), [("changing", True), ("changing-few-shot", False)])
def test_changing_sites_join_leave_get_classes_and_cameras(scenario, shared):
    part = split(scenario)
    by_kind = {}
    for change in part.changes:
        by_kind.setdefault(change.what, []).append(change)
    assert {kind: len(found) for kind, found in by_kind.items()} == {
        **{"joined": 2, "left": 2},
        **{"classes": 2, "camera": 2},
    }
    names = [change.site.name for change in part.changes]
    assert len(set(names)) == 8
    assert not set(names) & {"site-000", "site-001"}
    first = {site.name: site for site in part.sites}
    assert (part.shared_labels, part.classes) == (shared, 6 if shared else 5)
    assert all(len(set(site.y_train.tolist())) == SMALL.ways for site in part.sites)
    for change in by_kind["classes"]:
        before, after = first[change.site.name], change.site
        assert len(set(after.y_train.tolist())) == SMALL.ways + 2
        # What it had it has still, with the same labels.
        kept = np.isin(after.own.y, np.unique(before.own.y))
        np.testing.assert_array_equal(after.own.x[kept], before.own.x)
        np.testing.assert_array_equal(after.own.y[kept], before.own.y)
    for change in by_kind["camera"]:
        before, after = first[change.site.name], change.site
        np.testing.assert_array_equal(after.y_train, before.y_train)
        assert (after.x_train != before.x_train).any()


def test_the_sites_after_rounds_are_those_that_are_there_as_they_are_then():
    part = split("changing")
    assert [len(part.after(rounds)) for rounds in (0, 1, 2, 3, 5, 6, 9)] == [8, 8, 9, 8, 8, 8, 8]
    joined, left = (
        [change.site.name for change in part.changes if change.what == what]
        for what in ("joined", "left")
    )
    assert joined[0] not in part.after(1)
    assert joined[0] in part.after(2)
    assert left[0] in part.after(2)
    assert left[0] not in part.after(3)
    (change, _) = (change for change in part.changes if change.what == "camera")
    assert part.after(change.after)[change.site.name] is change.site
    assert part.after(change.after - 1)[change.site.name] is not change.site
    assert list(split("camera").after(9)) == [f"site-{number:03d}" for number in range(10)]
