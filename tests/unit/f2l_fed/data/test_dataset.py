"""A user's own ``.npz`` file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from f2l_fed.data.dataset import as_dataset, first_occurrences, load_npz, save_npz
from f2l_fed.errors import DataError

LABELS = np.array([3, 7, 3, 7])


def written(path: Path, **content: np.ndarray) -> Path:
    np.savez(path / "own.npz", **content)
    return path / "own.npz"


@pytest.mark.parametrize(
    ("given_shape", "shape", "axes"),
    [
        ((4, 6, 5), (4, 1, 6, 5), (0, 1, 2, 3)),
        ((4, 1, 6, 5), (4, 1, 6, 5), (0, 1, 2, 3)),
        ((4, 3, 6, 5), (4, 3, 6, 5), (0, 1, 2, 3)),
        ((4, 6, 5, 1), (4, 6, 5, 1), (0, 3, 1, 2)),
        ((4, 6, 5, 3), (4, 6, 5, 3), (0, 3, 1, 2)),
    ],
)
def test_images_of_every_layout_become_channels_first_in_the_unit_range(
    tmp_path, given_shape, shape, axes
):
    pixels = np.random.default_rng(0).integers(0, 256, given_shape, np.uint8)
    x = load_npz(written(tmp_path, x=pixels, y=LABELS)).x
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, pixels.reshape(shape).transpose(axes) / 255, atol=1e-6)


def test_float_images_and_vectors_keep_their_values(tmp_path):
    images = np.random.default_rng(0).random((4, 6, 5))
    np.testing.assert_allclose(load_npz(written(tmp_path, x=images, y=LABELS)).x[:, 0], images)
    vectors = np.array([[-300.0, 2.5], [0, 1], [7, 8], [9, 1e6]])
    assert load_npz(written(tmp_path, x=vectors, y=LABELS)).x.tolist() == vectors.tolist()
    counts = vectors.astype(np.int32)
    assert load_npz(written(tmp_path, x=counts, y=LABELS)).x.tolist() == counts.tolist()


@pytest.mark.parametrize(
    "labels",
    [
        np.array([-5, 900, -5, 2]),
        np.array([1.0, 3.0, 1.0, 2.0]),
        np.array(["ant", "cat", "ant", "bee"]),
        np.array([b"ant", b"cat", b"ant", b"bee"]),
    ],
)
def test_labels_are_numbered_in_sorted_order(tmp_path, labels):
    data = load_npz(written(tmp_path, x=np.eye(4), y=labels))
    assert data.y.tolist() == [0, 2, 0, 1]
    assert data.y.dtype == np.int64
    assert (data.name, data.classes, data.groups) == ("own", 3, None)


def test_groups_are_numbered_like_labels(tmp_path):
    groups = np.array(["north", "east", "north", "west"])
    data = load_npz(written(tmp_path, x=np.eye(4), y=LABELS, groups=groups))
    assert data.groups is not None
    assert data.groups.tolist() == [1, 0, 1, 2]


SPOILT = np.ones((4, 2))
SPOILT[1, 0] = np.nan
SPOILT[3, 1] = np.inf


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"x": np.eye(4)}, "no array named y: expected arrays x and y, got x"),
        ({"images": np.eye(4)}, "no array named x or y: expected arrays x and y, got images"),
        ({"x": np.eye(4), "y": LABELS[:3]}, "x and y have different lengths: got 4 and 3"),
        ({"x": np.eye(4), "y": LABELS, "groups": LABELS[:2]}, "x and groups have different"),
        ({"x": np.ones(4), "y": LABELS}, r"wrong number of dimensions: .* got \(4,\)"),
        ({"x": np.ones((4, 1, 1, 2, 2)), "y": LABELS}, "wrong number of dimensions"),
        ({"x": np.ones((4, 5, 5, 4)), "y": LABELS}, "none counts channels"),
        ({"x": np.array([{}] * 4), "y": LABELS}, "x holds Python objects"),
        ({"x": np.eye(4), "y": np.array([None] * 4)}, "y holds Python objects"),
        ({"x": SPOILT, "y": LABELS}, r"x has 2 values that are NaN.* the first at x\[1, 0\]"),
        ({"x": np.full((4, 1), 1e300), "y": LABELS}, r"too large for float32.* at x\[0, 0\]"),
        ({"x": np.full((4, 3, 3), 700), "y": LABELS}, "out of range: .* from 700 to 700"),
        ({"x": np.full((4, 3, 3), -0.5), "y": LABELS}, "out of range"),
        ({"x": np.eye(4), "y": np.zeros(4, int)}, "all examples have the same label"),
        ({"x": np.empty((0, 3)), "y": np.empty(0, int)}, r"x is empty: got shape \(0, 3\)"),
        ({"x": np.empty((4, 0)), "y": LABELS}, "x is empty"),
        ({"x": np.eye(4), "y": np.eye(4)}, "y is not one-dimensional"),
        ({"x": np.eye(4), "y": np.array([0, 1, 1.5, np.nan])}, r"not whole at y\[2\]: .* got 1.5"),
        ({"x": np.eye(4), "y": np.array([0, 1, np.inf, np.nan])}, r"not whole at y\[2\]"),
        ({"x": np.eye(4), "y": LABELS.astype("M8[D]")}, "y holds neither integers nor strings"),
        ({"x": np.eye(4).astype(str), "y": LABELS}, "x is not numeric"),
        ({"x": np.eye(4) + 1j, "y": LABELS}, "x is not numeric"),
    ],
)
def test_bad_arrays_are_answered_with_one_sentence_and_a_remedy(tmp_path, content, sentence):
    path = written(tmp_path, **content)
    with pytest.raises(DataError, match=sentence) as caught:
        load_npz(path)
    assert caught.value.where == str(path)
    assert caught.value.remedy.endswith(".")
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_files_that_are_no_archives_are_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.npz: the file does not exist"):
        load_npz(tmp_path / "absent.npz")
    with pytest.raises(DataError, match="can't be read"):
        load_npz(tmp_path)
    for name, content in (("empty", b""), ("text", b"x,y\n1,2\n")):
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"not an \.npz archive"):
            load_npz(path)
    np.save(tmp_path / "single.npy", np.eye(3))
    with pytest.raises(DataError, match=r"not an \.npz archive"):
        load_npz(tmp_path / "single.npy")


def test_a_damaged_member_is_named(tmp_path):
    path = written(tmp_path, x=np.arange(400.0).reshape(100, 4), y=np.arange(100))
    content = bytearray(path.read_bytes())
    content[1000] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="array x is damaged"):
        load_npz(path)


@settings(max_examples=50, deadline=None)
@given(
    x=arrays.arrays(
        np.float32, (3, 1, 2, 2), elements=st.integers(0, 255).map(lambda v: np.float32(v) / 255)
    )
)
def test_images_of_bytes_come_back_exactly_at_a_quarter_of_the_size(x, tmp_path_factory):
    path = tmp_path_factory.mktemp("bytes") / "images.npz"
    save_npz(path, x, np.array([0, 1, 1]))
    with np.load(path) as archive:
        assert archive["x"].dtype == np.uint8
    assert np.array_equal(load_npz(path).x, x)


@settings(max_examples=50, deadline=None)
@given(
    x=arrays.arrays(
        np.float32, st.sampled_from([(3, 4), (3, 1, 2, 2)]), elements=st.floats(0, 1, width=32)
    )
)
def test_what_is_saved_comes_back_exactly(x, tmp_path_factory):
    path = tmp_path_factory.mktemp("any") / "data.npz"
    save_npz(path, x, np.array([1, 0, 1]), np.array([0, 0, 1]))
    data = load_npz(path)
    assert np.array_equal(data.x, x)
    assert data.y.tolist() == [1, 0, 1]
    assert data.groups is not None
    assert data.groups.tolist() == [0, 0, 1]


def test_saving_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "data.npz"
    save_npz(path, np.float32([[1, 2], [3, 4]]), np.array([0, 1]))
    save_npz(path, np.float32([[5, 6], [7, 8]]), np.array([0, 1]))
    assert load_npz(path).x.tolist() == [[5, 6], [7, 8]]
    assert [entry.name for entry in path.parent.iterdir()] == ["data.npz"]


def test_a_failed_save_keeps_the_old_file(tmp_path):
    path = tmp_path / "data.npz"
    save_npz(path, np.float32([[1, 2], [3, 4]]), np.array([0, 1]))

    class Unsavable:
        def __array__(self, dtype=None, copy=None):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_npz(path, np.float32([[5, 6], [7, 8]]), Unsavable())
    assert load_npz(path).x.tolist() == [[1, 2], [3, 4]]
    assert [entry.name for entry in tmp_path.iterdir()] == ["data.npz"]


@settings(max_examples=50, deadline=None)
@given(
    x=arrays.arrays(
        np.float32, st.tuples(st.integers(1, 12), st.just(2)), elements=st.sampled_from([0, 1])
    )
)
def test_first_occurrences_keep_every_distinct_row_once(x):
    kept = first_occurrences(x)
    assert len(np.unique(x, axis=0)) == len(kept)
    assert all(not (x[:row] == x[row]).all(axis=1).any() for row in kept)


def test_errors_name_the_dataset_where_there_is_no_file():
    with pytest.raises(DataError, match="scans: x is empty"):
        as_dataset("scans", np.empty((0, 2)), np.empty(0))
