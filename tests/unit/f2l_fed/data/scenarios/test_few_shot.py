"""The number of classes of few-shot sites: set, drawn from a range, or as many as there are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from f2l_fed.core.random_streams import stream
from f2l_fed.data import Dataset, Partition, SplitConfig, partition
from f2l_fed.data.dataset import as_dataset
from f2l_fed.errors import DataError
from tests.support.partitions import SMALL, all_sites


def made(classes: int, per_class: int = 40) -> Dataset:
    y = np.repeat(np.arange(classes), per_class)
    return as_dataset("made", stream(0, "made").random((len(y), 1, 4, 4)), y)


def split(
    data: Dataset, sites: int = 3, held_out: int = 2, config: SplitConfig = SMALL
) -> Partition:
    return partition("few-shot", (data,), sites=sites, held_out=held_out, seed=0, config=config)


def test_few_shot_sites_have_different_numbers_of_classes_where_there_is_a_range():
    config = replace(SMALL, ways=3, most_ways=6)
    part = split(made(classes=20), sites=40, held_out=20, config=config)
    counts = [len(site.classes) for site in part.sites]
    assert set(counts) == {3, 4, 5, 6}
    assert part.classes == 6
    for site in all_sites(part):
        assert sorted(set(site.y_train.tolist())) == list(range(len(site.classes)))
        assert len(site.x_train) == len(site.classes) * (4 if site in part.sites else 2)
    one = split(made(classes=20), sites=40, config=replace(config, most_ways=0))
    assert {len(site.classes) for site in one.sites} == {3}


def test_the_pool_has_to_have_the_most_classes_of_the_range():
    with pytest.raises(DataError, match="too few classes") as error:
        split(made(classes=5), config=replace(SMALL, most_ways=6))
    assert "at least 6 (most_ways)" in str(error.value)


def test_a_number_of_classes_that_nobody_asked_for_is_as_many_as_there_are():
    part = split(made(classes=3), config=replace(SMALL, ways=0))
    assert {len(site.classes) for site in all_sites(part)} == {3} == {part.classes}
    assert part.notes == ("The data have 3 classes, so each site has all of them in place of 5.",)
    usual = split(made(classes=8), config=replace(SMALL, ways=0))
    assert (usual.classes, usual.notes) == (5, ())
    with pytest.raises(DataError, match=r"at least 5 \(ways\), got 3"):
        split(made(classes=3), config=replace(SMALL, ways=5))
