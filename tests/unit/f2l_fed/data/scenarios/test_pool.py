"""Putting datasets together, dealing rows, and streams of chance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from f2l_fed.core.random_streams import stream
from f2l_fed.data.dataset import as_dataset
from f2l_fed.data.scenarios.pool import Deck, merge_datasets
from f2l_fed.errors import DataError


@settings(deadline=None)
@given(
    size=st.integers(1, 12),
    shares=st.lists(st.floats(0, 1), max_size=12),
    seed=st.integers(0, 2**32),
)
def test_a_deck_deals_every_row_as_often_as_any_other_and_never_twice_at_once(size, shares, seed):
    rows = np.arange(100, 100 + size)
    deck = Deck(rows, stream(seed))
    counts = [round(share * size) for share in shares]
    dealt = [deck.deal(count) for count in counts]
    assert [len(np.unique(hand)) for hand in dealt] == counts
    times = [int(sum((hand == row).sum() for hand in dealt)) for row in rows]
    assert max(times) - min(times) <= 1
    assert deck.ran_out == (sum(counts) > size)


def test_streams_differ_by_seed_and_by_every_part_of_the_purpose():
    purposes = [(0, "a", 1), (1, "a", 1), (0, "b", 1), (0, "a", 2), (0, "a1"), (-1, "a", 1)]
    drawn = [stream(seed, *purpose).integers(2**62) for seed, *purpose in purposes]
    assert len(set(drawn)) == len(purposes)
    assert drawn[0] == stream(0, "a", 1).integers(2**62)


def test_classes_and_groups_of_later_datasets_are_counted_on():
    first = as_dataset("first", np.eye(3), np.array([0, 1, 0]), np.array([0, 1, 1]))
    second = as_dataset("second", np.eye(3) * 2, np.array([0, 1, 2]), np.array([0, 0, 1]))
    pool = merge_datasets([first, second])
    assert pool.classes == 5
    assert pool.y.tolist() == [0, 1, 0, 2, 3, 4]
    assert pool.groups is not None
    assert pool.groups.tolist() == [0, 1, 1, 2, 2, 3]
    assert pool.describe(1) == "first, class 1"
    assert pool.describe(4) == "second, class 2"


def test_copies_across_datasets_are_dropped_with_their_labels_and_groups():
    first = as_dataset("first", np.eye(3), np.array([0, 1, 0]), np.array([0, 1, 1]))
    second = as_dataset("second", np.array([[1, 1, 2], [0, 1, 0], [1, 0, 0]]), np.array([0, 1, 0]))
    pool = merge_datasets([first, second])
    assert pool.x.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 2]]
    assert pool.y.tolist() == [0, 1, 0, 2]
    assert pool.groups is None


def test_datasets_that_dont_go_together_are_named():
    vectors = as_dataset("vectors", np.eye(3), np.array([0, 1, 0]))
    images = as_dataset("images", np.ones((2, 4, 4)), np.array([0, 1]))
    with pytest.raises(
        DataError, match=r"different shapes: got vectors \(3,\), images \(1, 4, 4\)"
    ):
        merge_datasets([vectors, images])
    with pytest.raises(DataError, match="named twice"):
        merge_datasets([vectors, vectors])
    with pytest.raises(DataError, match="no dataset is given"):
        merge_datasets([])
