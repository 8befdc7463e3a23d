from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clients.data.examples import ExampleSource
from f2l_fed.data import Dataset
from f2l_fed.errors import DataError


def load_examples(path: Path, labels: tuple[str, ...] = ()) -> Dataset:
    """The examples as a site reads them; without labels by those that occur."""
    source = ExampleSource.read(path)
    return source.numbered(labels or source.labels)


def write_image(path: Path, mode: str = "L", size: tuple[int, int] = (4, 3), value=7) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def write_csv(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_class_folders_become_classes_in_sorted_order(tmp_path):
    write_image(tmp_path / "scratch/1.png", value=255)
    write_image(tmp_path / "ok/1.png", value=0)
    write_image(tmp_path / "ok/2.bmp", value=51)
    data = load_examples(tmp_path)
    assert data.x.shape == (3, 1, 3, 4)
    assert data.y.tolist() == [0, 0, 1]
    assert data.x[:, 0, 0, 0].tolist() == pytest.approx([0.0, 0.2, 1.0])


def test_colour_images_keep_their_channels_even_where_they_are_three_pixels_high(tmp_path):
    for name in ("a", "b"):
        write_image(tmp_path / name / "1.png", "RGB", size=(5, 3), value=(255, 0, 0))
    x = load_examples(tmp_path).x
    assert x.shape == (2, 3, 3, 5)
    assert x[:, 0].min() == 1
    assert x[:, 1:].max() == 0


def test_hidden_files_and_files_beside_the_class_folders_do_not_matter(tmp_path):
    for name in ("a", "b"):
        write_image(tmp_path / name / "1.png")
    (tmp_path / "a/.DS_Store").write_text("x")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    assert len(load_examples(tmp_path).y) == 2


@pytest.mark.parametrize(
    ("mode", "size", "message"),
    [
        (
            "L",
            (4, 4),
            r"b/2\.png: the image has another size or colour: expected grey of 4x3 pixels as 1",
        ),
        (
            "RGB",
            (4, 3),
            r"b/2\.png: the image has another size or colour.*got RGB of 4x3",
        ),
        ("RGBA", (4, 3), r"b/2\.png: the image is neither grey nor RGB: got mode RGBA"),
    ],
)
def test_the_first_odd_image_is_named(tmp_path, mode, size, message):
    write_image(tmp_path / "a/1.png")
    write_image(tmp_path / "b/1.png")
    write_image(tmp_path / "b/2.png", mode, size, 0 if mode == "L" else (0,) * len(mode))
    write_image(tmp_path / "b/3.png", "L", (9, 9))
    with pytest.raises(DataError, match=message):
        load_examples(tmp_path)


def test_an_unreadable_image_is_named(tmp_path):
    write_image(tmp_path / "a/1.png")
    write_image(tmp_path / "b/1.png")
    whole = (tmp_path / "b/1.png").read_bytes()
    (tmp_path / "b/1.png").write_bytes(whole[:40])
    with pytest.raises(DataError, match=r"b/1\.png: the image can't be read"):
        load_examples(tmp_path)


def test_a_folder_without_class_folders_is_refused(tmp_path):
    write_image(tmp_path / "1.png")
    with pytest.raises(DataError, match="no class folders"):
        load_examples(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: the class folder has no images"):
        load_examples(tmp_path)


def test_csv_and_parquet_give_the_same_examples(tmp_path):
    csv = write_csv(tmp_path / "t.csv", "a,label,b\n1,cat,0.5\n2,dog,-1e3\n3,cat,0\n")
    table = pa.table({"a": [1, 2, 3], "label": ["cat", "dog", "cat"], "b": [0.5, -1e3, 0.0]})
    pq.write_table(table, tmp_path / "t.parquet")
    for path in (csv, tmp_path / "t.parquet"):
        data = load_examples(path)
        assert data.x.tolist() == [[1, 0.5], [2, -1000], [3, 0]]
        assert data.y.tolist() == [0, 1, 0]


def test_a_column_named_label_goes_before_one_named_y(tmp_path):
    path = write_csv(tmp_path / "t.csv", "y,label\n5,a\n6,b\n")
    assert load_examples(path).x.tolist() == [[5], [6]]


def test_categories_and_the_row_index_of_pandas_are_understood(tmp_path):
    columns = {
        "x": pa.array([1.5, 2.5]),
        "y": pa.array(["b", "a"]).dictionary_encode(),
        "__index_level_0__": pa.array([7, 8]),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    data = load_examples(tmp_path / "t.parquet")
    assert data.x.tolist() == [[1.5], [2.5]]
    assert data.y.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", r"expected a column named label or y, got columns a, b"),
        ("y\n1\n2\n", r"the column of labels or the other columns are missing"),
        ("a,y\n1,0\ntwo,1\n", r"column 'a', data row 2: the value is not a number: got 'two'"),
        ("a,y\n1,0\n,1\n", r"column 'a', data row 2: the value is missing or not finite"),
        ("a,y\n1,0\ninf,1\n", r"column 'a', data row 2: the value is missing or not finite"),
        ("a,y\n1,u\n2,\n", r"column 'y', data row 2: the label is missing"),
        ("a,y\n1,0.5\n2,1\n", r"y is not whole"),
        (",a,y\n0,1,0\n1,2,1\n", r"the column's name is missing or not unique.*index=False"),
        ("a,a,y\n0,1,0\n1,2,1\n", r"the column's name is missing or not unique: got 'a'"),
        ("a,y\n", r"the table has no rows"),
        ("a,y\n1,2,3\n", r"the table can't be read"),
    ],
)
def test_a_table_that_can_not_be_used_is_refused_with_the_place(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        load_examples(write_csv(tmp_path / "t.csv", text))


def test_whole_numbers_keep_their_meaning_where_a_class_is_missing(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.zeros((3, 2)), y=np.array([4.0, 1.0, 4.0]))
    data = load_examples(tmp_path / "d.npz")
    assert data.y.tolist() == [4, 1, 4]
    assert data.classes == 5


@pytest.mark.parametrize("labels", [np.array(["b", "c", "b"]), np.array([b"b", b"c", b"b"])])
def test_named_labels_follow_the_given_order(tmp_path, labels):
    np.savez(tmp_path / "d.npz", x=np.zeros((3, 2)), y=labels)
    assert load_examples(tmp_path / "d.npz").y.tolist() == [0, 1, 0]
    data = load_examples(tmp_path / "d.npz", ("c", "a", "b"))
    assert data.y.tolist() == [2, 0, 2]
    assert data.classes == 3
    with pytest.raises(DataError, match="unknown label: expected one of b, got 'c'"):
        load_examples(tmp_path / "d.npz", ("b",))


@pytest.mark.parametrize("name", ["absent.npz", "absent", "absent.csv"])
def test_missing_data_are_named(tmp_path, name):
    with pytest.raises(DataError, match=f"{name}: the data do not exist"):
        load_examples(tmp_path / name)


def test_an_unknown_kind_of_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"expected an \.npz, \.csv or \.parquet file"):
        load_examples(write_csv(tmp_path / "t.xls", ""))
