"""The division of a site's examples: copies and groups stay together."""

from __future__ import annotations

import numpy as np
import pytest

from f2l_fed.data.readers.division import held_out_groups, joined_groups, same_rows
from tests.support.checked_site import checked, one_problem, one_remark, opened

RNG = np.random.default_rng(0)


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


def rows(x):
    return {tuple(row.tolist()) for row in x}


def test_copies_are_kept_on_one_side_with_a_remark(tmp_path):
    x = np.repeat(RNG.random((30, 4)), 3, axis=0)
    path = saved(tmp_path / "d.npz", x=x, y=np.arange(90) // 3 % 3)
    site = opened(path)
    assert rows(site.train.x).isdisjoint(rows(site.validation.x))
    assert site.validation.y.bincount().tolist() == [6, 6, 6]
    one_remark(checked(path), "60 examples are exact copies", "kept on one side")


def test_copies_with_different_labels_are_remarked(tmp_path):
    x = np.concatenate([RNG.random((30, 4)), np.ones((4, 4))])
    path = saved(tmp_path / "d.npz", x=x, y=np.arange(34) % 2)
    one_remark(checked(path), "1 example occurs several times with different labels")


def test_copies_in_a_validation_file_or_folder_are_counted(tmp_path):
    x, y = RNG.random((30, 4)), np.arange(30) % 2
    path = saved(tmp_path / "d.npz", x=x, y=y)
    saved(tmp_path / "v.npz", x=np.concatenate([x[:5], RNG.random((5, 4))]), y=y[:10])
    report = checked(path, top=f'validation = "{tmp_path / "v.npz"}"')
    one_remark(report, "5 of 10 validation examples are exact copies")
    assert report.train == 30


def test_groups_are_kept_on_one_side(tmp_path):
    group = np.arange(60) // 4
    x = RNG.random((60, 2))
    x[:, 0] = group
    path = saved(tmp_path / "d.npz", x=x, y=RNG.permutation(60) % 3, groups=group)
    site = opened(path)
    assert set(site.train.x[:, 0].tolist()).isdisjoint(site.validation.x[:, 0].tolist())
    assert 8 <= len(site.validation.y) <= 16
    one_remark(checked(path), "15 groups")


def test_copies_in_different_groups_are_kept_on_one_side(tmp_path):
    x = np.repeat(RNG.random((30, 3)), 2, axis=0)
    path = saved(tmp_path / "d.npz", x=x, y=np.arange(60) // 2 % 2, groups=np.arange(60))
    site = opened(path)
    assert rows(site.train.x).isdisjoint(rows(site.validation.x))
    one_remark(checked(path), "30 examples are exact copies", "kept on one side")


def test_copies_that_join_all_groups_are_said_to_be_on_both_sides(tmp_path):
    x, y = np.ones((40, 1)), np.arange(40) % 2
    path = saved(tmp_path / "d.npz", x=x, y=y, groups=np.arange(40) // 4)
    one_remark(checked(path), "39 examples are exact copies", "says too much")


def test_groups_that_can_not_be_divided_are_told(tmp_path):
    path = saved(tmp_path / "d.npz", x=RNG.random((20, 2)), y=np.arange(20) % 2, groups=[7] * 20)
    assert "name others under validation" in one_problem(checked(path), "no group")


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5])
def test_no_class_loses_its_last_group_and_each_is_measured_where_it_can_be(fraction):
    for seed in range(30):
        rng = np.random.default_rng(seed)
        groups, labels = rng.integers(0, 25, 100), rng.integers(0, 4, 100)
        held = held_out_groups(groups, labels, rng.permutation(100), fraction)
        rest = np.setdiff1d(np.arange(100), held)
        assert set(groups[held]).isdisjoint(groups[rest])
        assert set(labels[rest]) == set(labels[held]) == set(range(4))


def test_equal_rows_have_equal_numbers():
    assert same_rows(np.array([[1.0, np.nan], [2, 3], [1, np.nan]])).tolist() == [0, 1, 0]


def test_joined_groups_are_the_parts_that_hang_together():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 40, 60), rng.integers(0, 40, 60)
    joined = joined_groups(first, second)
    same = (first[:, None] == first) | (second[:, None] == second)
    for _ in range(6):
        same = same @ same
    assert np.array_equal(joined[:, None] == joined, same)
