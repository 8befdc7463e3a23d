"""Arrays in an ``.npz``, with every value that is wrong told at once."""

from __future__ import annotations

import numpy as np
import pytest

from f2l_fed.data.readers.arrays import read_npz
from f2l_fed.data.readers.config import ReadingConfig
from f2l_fed.data.readers.findings import DataProblems, Findings
from f2l_fed.data.readers.reading import READERS, read_raw
from f2l_fed.errors import DataError
from tests.support.checked_site import checked, one_problem, one_remark, opened

Y = np.arange(20) % 2
X = np.random.default_rng(0).random((20, 3))


def saved(path, **arrays):
    np.savez(path / "d.npz", **arrays)
    return path / "d.npz"


def test_arrays_of_other_names_and_groups_are_read(tmp_path):
    path = saved(tmp_path, x=X, diagnosis=Y, person=Y)
    one_problem(checked(path), "no array named y")
    report = checked(path, 'label = "diagnosis"')
    assert report.problems == ()
    grouped = saved(tmp_path, x=X, y=Y, groups=np.arange(20) // 4)
    one_remark(checked(grouped), "5 groups")
    person = saved(tmp_path, x=X, y=Y, person=np.arange(20) // 5)
    one_remark(checked(person, 'group = "person"'), "4 groups")


def test_gaps_of_vectors_are_filled_in_like_those_of_tables(tmp_path):
    x = X.copy()
    x[3, 1] = np.nan
    path = saved(tmp_path, x=x, y=Y)
    one_remark(checked(path), "median", "'2' (1)")
    assert opened(path).train.x.shape[1:] == (4,)


def test_infinite_values_and_gaps_of_images_are_counted(tmp_path):
    x = X.copy()
    x[3:5] = np.inf
    problem = one_problem(checked(saved(tmp_path, x=x, y=Y)), "NaN, infinite or too large")
    assert "6 in all" in problem
    assert "inf (x[3, 0])" in problem
    images = np.zeros((20, 3, 3))
    images[7, 1, 2] = np.nan
    one_problem(checked(saved(tmp_path, x=images, y=Y)), "nan (x[7, 1, 2])")


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"x": X, "y": Y[:3]}, "x and y have different lengths: got 20 and 3"),
        ({"x": np.ones(4), "y": Y}, r"wrong number of dimensions: .* got \(4,\)"),
        ({"x": np.ones((4, 5, 5, 4)), "y": Y[:4]}, "none counts channels"),
        ({"x": np.array([{}] * 4), "y": Y[:4]}, "x holds Python objects"),
        ({"x": np.full((20, 3, 3), 700), "y": Y}, "out of range: .* from 700 to 700"),
        ({"x": np.full((20, 3, 3), 2**40), "y": Y}, "out of range"),
        ({"x": np.empty((0, 3)), "y": Y[:0]}, r"x is empty: got shape \(0, 3\)"),
        ({"x": X, "y": np.eye(20)}, r"y is not one-dimensional.*argmax"),
        ({"x": X, "y": Y.astype("M8[D]")}, "y holds neither integers nor strings"),
        ({"x": X.astype(str), "y": Y}, "x is not numeric"),
        ({"x": X.astype("M8[s]"), "y": Y}, "x is not numeric"),
    ],
)
def test_arrays_of_another_form_are_refused(tmp_path, arrays, sentence):
    with pytest.raises(DataError, match=sentence):
        read_raw(saved(tmp_path, **arrays), ReadingConfig())


def test_an_array_beyond_the_limit_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "d.npz"
    np.savez_compressed(path, x=np.zeros((1000, 100)), y=np.arange(1000) % 2)
    monkeypatch.setattr("f2l_fed.data.readers.arrays.MOST_VALUES", 1000)
    with pytest.raises(DataError, match="an array is too large"):
        read_npz(path, ReadingConfig(), Findings(""))


def test_several_problems_are_one_error_with_a_sentence_each():
    findings = Findings("t.csv")
    findings.problem("values are odd", ["1 (t.csv:2)"], remedy="Correct them.")
    findings.problem("values are odd", [f"{n} (t.csv:{n})" for n in range(3, 9)])
    findings.problem("a column is missing")
    with pytest.raises(DataProblems) as caught:
        findings.require_none()
    assert str(caught.value) == (
        "t.csv: values are odd (7 in all): got 1 (t.csv:2), 3 (t.csv:3), 4 (t.csv:4), 5 (t.csv:5), "
        "6 (t.csv:6) and 2 more. Correct them. t.csv: a column is missing."
    )
    assert caught.value.exit_code == 2


def test_a_reader_of_ones_own_goes_through_the_same_checks(tmp_path, monkeypatch):
    monkeypatch.setitem(READERS, ".npy", lambda path: (np.load(path)[:, :-1], np.load(path)[:, -1]))
    np.save(tmp_path / "t.npy", np.column_stack([X, Y]))
    assert opened(tmp_path / "t.npy").train.x.shape[1:] == (3,)
    np.save(tmp_path / "t.npy", np.column_stack([X, Y + 0.5]))
    one_problem(checked(tmp_path / "t.npy"), "y is not whole")


def test_the_scale_of_sixteen_bits_does_not_hang_on_the_brightest_pixel(tmp_path):
    x = np.zeros((4, 3, 3), np.uint16)
    x[0] = 65535
    raw = read_raw(saved(tmp_path, x=x, y=[0, 1, 0, 1]), ReadingConfig())
    assert sorted(set(raw.inputs.flatten().tolist())) == [0, 1]
    read_raw(saved(tmp_path, x=x[1:], y=[0, 1, 0]), ReadingConfig())
    x[0] = 255
    with pytest.raises(DataError, match="8 or of 16 bits"):
        read_raw(saved(tmp_path, x=x, y=[0, 1, 0, 1]), ReadingConfig())
