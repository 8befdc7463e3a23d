"""File formats of packaged data, above all the refusal of pickles that do things."""

from __future__ import annotations

import gzip
import os
import pickle

import numpy as np
import pytest

from f2l_fed.data.file_formats import read_array_pickle, read_idx, read_table
from f2l_fed.errors import DataError


def zipped(path, content: bytes):
    path.write_bytes(gzip.compress(content))
    return path


class Attack:
    """Unpickles into a call, as a hostile file would."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_hostile_pickle_is_refused_before_it_runs(tmp_path):
    marker = tmp_path / "attacked"
    for payload in (Attack(marker), [np.eye(2), Attack(marker)]):
        path = zipped(tmp_path / "data.gz", pickle.dumps(payload))
        with pytest.raises(DataError, match=r"mkdir, which is refused"):
            read_array_pickle(path)
        assert not marker.exists()


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_arrays_pickled_by_old_and_new_numpy_are_read(tmp_path, module):
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    content = pickle.dumps(array, protocol=3).replace(b"numpy._core.multiarray", module.encode())
    assert module.encode() in content
    assert np.array_equal(read_array_pickle(zipped(tmp_path / "data.gz", content)), array)


@pytest.mark.parametrize(
    "content",
    [pickle.dumps([1, 2]), pickle.dumps(np.array([[], {}], dtype=object)), b"not a pickle", b""],
)
def test_pickles_of_anything_but_a_plain_array_are_refused(tmp_path, content):
    with pytest.raises(DataError, match="expected a pickled numpy array"):
        read_array_pickle(zipped(tmp_path / "data.gz", content))


def test_idx_files_are_read(tmp_path):
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    header = bytes([0, 0, 8, 3]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    path = zipped(tmp_path / "images.gz", header + values.tobytes())
    assert np.array_equal(read_idx(path), values)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "expected an IDX header of bytes, got nothing"),
        (b"\0\0\x0d\x01\0\0\0\0", "expected an IDX header of bytes, got 00000d01"),
        (b"\0\0\x08\x03\0\0", "expected an IDX header"),
        (b"\0\0\x08\x01\0\0\0\x05abc", "expected 5 values, got 3"),
    ],
)
def test_damaged_idx_files_are_named(tmp_path, content, sentence):
    with pytest.raises(DataError, match=sentence):
        read_idx(zipped(tmp_path / "images.gz", content))


def test_tables_are_read_past_their_header(tmp_path):
    path = tmp_path / "table.dat"
    path.write_text("@relation vowel\n@data\n1,2.5,-3\n4,5,6\n")
    assert read_table(path).tolist() == [[1, 2.5, -3], [4, 5, 6]]
    path.write_text("1,2\n3,many\n")
    with pytest.raises(DataError, match="expected comma-separated numbers"):
        read_table(path)


def test_cut_off_gzip_files_are_named(tmp_path):
    path = tmp_path / "data.gz"
    path.write_bytes(gzip.compress(os.urandom(500))[:300])
    for read in (read_array_pickle, read_idx):
        with pytest.raises(DataError, match="expected a gzip file"):
            read(path)
