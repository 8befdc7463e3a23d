"""Columns of tables: labels, features, gaps, texts, dates, ids; the same from Parquet."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from f2l_fed.data.readers.config import ReadingConfig
from f2l_fed.data.readers.encoding_fit import fit_encoding
from f2l_fed.data.readers.feature_encoding import FeatureEncoding
from f2l_fed.data.readers.findings import Findings
from f2l_fed.data.readers.reading import read_raw
from f2l_fed.errors import ConfigError
from tests.support.checked_site import checked, one_problem, one_remark, opened, write_rows

N = 20


def table(path: Path, **columns: object) -> Path:
    """A Parquet or CSV file of these columns and 20 labels."""
    frame = {"label": ["ok", "scratch"] * (N // 2), **columns}
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        pd.DataFrame(frame).to_csv(path, index=False)
    else:
        pq.write_table(pa.table(frame), path)
    return path


KINDS = pytest.mark.parametrize("kind", [".csv", ".parquet"])


@pytest.mark.parametrize("name", ["Label", "CLASS", "target", "Klasse"])
def test_usual_names_of_the_column_of_labels_are_found_and_remarked(tmp_path, name):
    text = write_rows(tmp_path / "t.csv").read_text().replace("label", name)
    report = checked(write_rows(tmp_path / "t.csv", text=text))
    assert report.problems == ()
    one_remark(report, repr(name), "taken for the labels")


def test_the_column_of_labels_can_be_named_and_a_wrong_name_is_told(tmp_path):
    text = write_rows(tmp_path / "t.csv").read_text().replace("label", "Prüf Ergebnis")
    path = write_rows(tmp_path / "t.csv", text=text)
    assert 'label = "result"' in one_problem(checked(path), "no column of labels", "'a', 'b'")
    assert checked(path, 'label = "prüf ergebnis"').problems == ()
    problem = one_problem(checked(path, 'label = "Prüf Ergebni"'), "[data] label")
    assert "Did you mean 'Prüf Ergebnis'?" in problem
    one_problem(checked(path, 'label = "Prüf Ergebnis"\nignore = ["c"]'), "[data] ignore", "'c'")


@KINDS
def test_running_numbers_ids_dates_and_empty_columns_are_left_out_with_a_remark(tmp_path, kind):
    path = table(
        tmp_path / f"t{kind}",
        id=list(range(1000, 1000 + N)),
        machine_id=[f"m{n:04d}" for n in range(N)],
        day=[datetime.date(2026, 1, 1 + n) for n in range(N)],
        time=[datetime.datetime(2026, 1, 1, n) for n in range(N)],
        empty=[None] * N,
        note=[f"remark {n % 17}x{n}" + "y" * 40 for n in range(N)],
        a=[n * 0.5 for n in range(N)],
    )
    report = checked(path)
    assert report.problems == ()
    for name in ("id", "machine_id", "day", "time", "empty"):
        one_remark(report, repr(name), "left out")
    site = opened(path, 'ignore = ["note"]')
    assert site.encoding.features == ("a",)


def test_german_dates_are_no_numbers_and_no_categories(tmp_path):
    path = table(
        tmp_path / "t.csv", a=list(range(N)), am=[f"{n + 1:02d}.02.2026" for n in range(N)]
    )
    one_remark(checked(path), "'am'", "dates")
    assert opened(path).encoding.features == ("a",)


@KINDS
def test_texts_become_a_feature_for_each_and_booleans_numbers(tmp_path, kind):
    path = table(
        tmp_path / f"t{kind}", colour=["red", "blue ", None, "green"] * 5, hot=[True, False] * 10
    )
    site = opened(path)
    assert site.encoding.features == ("colour = blue", "colour = green", "colour = red", "hot")
    x = torch.cat([site.train.x, site.validation.x])
    assert x[:, :3].sum(0).tolist() == [5, 5, 5]
    assert x[:, 3].sum() == N / 2
    one_remark(checked(path), "'colour'", '["blue", "green", "red"]', "[data.categories]")


def test_categories_can_be_settled_so_that_all_sites_have_the_same(tmp_path):
    path = table(tmp_path / "t.csv", colour=["red", "blue"] * 10, a=list(range(N)))
    more = 'categories.colour = ["red", "black", "blue"]'
    site = opened(path, more)
    assert site.encoding.features[:3] == ("colour = red", "colour = black", "colour = blue")
    assert checked(path, more).remarks == checked(path, f"{more}\n").remarks
    assert not any("categories" in remark for remark in checked(path, more).remarks)


@KINDS
def test_gaps_get_the_median_of_the_training_rows_and_a_feature_tells_where(tmp_path, kind):
    a = [None if n in (3, 4, 5, 6) else float(n) for n in range(N)]
    path = table(tmp_path / f"t{kind}", a=a, b=list(range(N)))
    report, site = checked(path), opened(path)
    assert report.problems == ()
    one_remark(report, "median", "'a'")
    assert site.encoding.features == ("a", "a is missing", "b")
    gaps = site.train.x[:, 1] == 1
    present = site.train.x[~gaps, 0]
    assert set(site.train.x[gaps, 0].tolist()) == {float(np.median(present.numpy()))}
    assert opened(path, 'gaps = "median"').encoding.features == ("a", "b")
    left_out = checked(path, 'gaps = "leave-out"')
    assert left_out.train + left_out.validation == N - 4
    one_remark(left_out, "4 rows with missing values")
    row = 5 if kind == ".csv" else 4
    one_problem(checked(path, 'gaps = "refuse"'), "4 in all", f"'a' (t{kind}:{row})")


@pytest.mark.parametrize("gap", ["", "NA", "n/a", "-", "?", "#DIV/0!", "NaN", "NULL", " "])
def test_a_gap_is_known_in_every_spelling(tmp_path, gap):
    text = "a,label\n" + "".join(f"{n},{'xy'[n % 2]}\n" for n in range(N)) + f"{gap},x\n" * 3
    report = checked(write_rows(tmp_path / "t.csv", text=text))
    assert report.problems == ()
    one_remark(report, "'a' (")


def test_features_of_a_validation_file_are_matched_by_name_and_encoded_as_in_training(tmp_path):
    path = table(tmp_path / "t.csv", colour=["red", "blue"] * 10, a=[None, *range(1, N)])
    more = table(tmp_path / "more.csv", a=[*range(N)], colour=["green", "blue"] * 10, c=[1] * N)
    site = opened(path, top=f'validation = "{more}"')
    assert site.encoding.features[0] == "colour = blue"
    assert site.validation.x[0, :2].tolist() == [0, 0]
    assert site.validation.x[1, :2].tolist() == [1, 0]
    one_remark(checked(path, top=f'validation = "{more}"'), "10 values", "'colour'")
    table(more, b=[1] * N)
    one_problem(checked(path, top=f'validation = "{more}"'), "columns are missing", "'colour'")


def test_an_encoding_is_kept_as_plain_values(tmp_path):
    raw = read_raw(
        table(tmp_path / "t.csv", colour=["red", "blue"] * 10, a=[None, *range(1, N)]),
        ReadingConfig(),
    )
    encoding = fit_encoding(raw, np.arange(N), ReadingConfig(), Findings(""))
    again = FeatureEncoding.of_text(encoding.text, where="")
    assert again == encoding
    findings = Findings("")
    assert np.array_equal(again.encode(raw, findings), encoding.encode(raw, findings))


@pytest.mark.parametrize("value", [2**63, 1e30, 2**24 + 1])
@KINDS
def test_large_whole_numbers_never_wrap(tmp_path, value, kind):
    column = pa.array([value] * N, pa.uint64() if isinstance(value, int) else pa.float64())
    path = table(tmp_path / f"t{kind}", a=column.to_pylist() if kind == ".csv" else column)
    assert opened(path).train.x.unique().tolist() == [float(np.float32(value))]


@KINDS
def test_numbers_beyond_float32_are_told_with_their_place(tmp_path, kind):
    path = table(tmp_path / f"t{kind}", a=[1e39, *([1.0] * (N - 2)), -1e300])
    problem = one_problem(checked(path), "too large for float32", "2 in all")
    assert f"1e+39 (t{kind}:{2 if kind == '.csv' else 1})" in problem


def test_columns_of_lists_are_told(tmp_path):
    path = table(tmp_path / "t.parquet", a=[[1, 2]] * N, b=list(range(N)))
    assert "'a': list" in one_problem(checked(path), "neither numbers nor texts")


def test_the_row_index_of_pandas_and_categories_are_understood(tmp_path):
    frame = pd.DataFrame({"a": range(N), "label": ["x", "y"] * 10}, index=range(7, 7 + N))
    frame.astype({"label": "category"}).to_parquet(tmp_path / "t.parquet")
    assert opened(tmp_path / "t.parquet").encoding.features == ("a",)
    frame.to_csv(tmp_path / "t.csv")
    assert opened(tmp_path / "t.csv").encoding.features == ("a",)
    text = (tmp_path / "t.csv").read_text()
    text = text.replace(",a,label", "a,a,label")
    one_problem(checked(write_rows(tmp_path / "u.csv", text=text)), "the same name", "'a'")


def test_parts_of_other_types_are_joined(tmp_path):
    table(tmp_path / "parts/0.parquet", a=list(range(N)))
    table(tmp_path / "parts/1.parquet", a=[n * 0.5 for n in range(N)])
    report = checked(tmp_path / "parts")
    assert (report.problems, report.train + report.validation) == ((), 2 * N)
    table(tmp_path / "parts/2.parquet", a=["x"] * N)
    one_problem(checked(tmp_path / "parts"), "column 'a'", "20 in all", "'x' (2.parquet:1)")


def test_a_damaged_parquet_file_is_told(tmp_path):
    path = table(tmp_path / "t.parquet", a=list(range(N)))
    path.write_bytes(path.read_bytes()[:-20])
    one_problem(checked(path), "t.parquet", "can't be read")


def test_many_columns_are_read(tmp_path):
    path = table(tmp_path / "t.csv", **{f"c{n}": list(range(N)) for n in range(3000)})
    report = checked(path)
    assert (report.problems, report.input_shape) == ((), (3000,))


def test_nothing_is_fitted_to_the_data_of_a_site_with_a_privacy_budget(tmp_path):
    budget = {"privacy": "epsilon = 8.0"}
    path = table(tmp_path / "t.csv", colour=["red", "blue"] * 10, a=[None, *range(1, N)])
    problem = one_problem(checked(path, **budget), "privacy budget", "'colour'")
    assert "[data.categories]" in problem
    more = 'categories.colour = ["red", "blue"]'
    one_remark(checked(path, more, **budget), "become 0")
    one_remark(checked(path, f'{more}\nscale = "standard"', **budget), "not scaled")
    site = opened(path, more, **budget)
    assert site.encoding.features == ("colour = red", "colour = blue", "a")
    assert 0.0 in torch.cat([site.train.x, site.validation.x])[:, 2].tolist()


def test_numbers_are_scaled_over_the_training_rows_and_other_features_are_not(tmp_path):
    a = [None, *(1e6 + n for n in range(1, N))]
    path = table(tmp_path / "t.csv", a=a, colour=["red", "blue"] * 10)
    site = opened(path, 'scale = "standard"')
    present = site.train.x[site.train.x[:, 1] == 0, 0]
    assert float(present.mean()) == pytest.approx(0, abs=1e-4)
    assert float(present.std(correction=0)) == pytest.approx(1, abs=1e-4)
    assert set(site.train.x[:, 1:].flatten().tolist()) <= {0.0, 1.0}
    column = site.encoding.columns[0]
    plain = opened(path).train.x
    plain[:, 0] = (plain[:, 0] - column.mean) / column.spread
    assert torch.allclose(plain, site.train.x, atol=0.02)


@pytest.mark.parametrize("value", [0.1, 98.6])
def test_a_column_that_varies_by_rounding_alone_is_not_blown_up(tmp_path, value):
    path = table(tmp_path / "t.csv", a=[value] * N, b=list(range(N)))
    raw = read_raw(path, ReadingConfig())
    again = np.repeat(np.arange(N), 5)
    encoding = fit_encoding(raw, again, ReadingConfig(scale="standard"), Findings(""))
    raw.inputs[:, 0] += 1e-3
    assert np.abs(encoding.encode(raw, Findings(""))[:, 0]).max() < 1.1e-3


@KINDS
def test_a_small_validation_file_keeps_texts_that_look_like_numbers(tmp_path, kind):
    path = table(
        tmp_path / "t.csv",
        flag=["true", "false", "unknown", "false"] * 5,
        size=["A", "1", "C", "B"] * 5,
        a=list(range(N)),
    )
    more = table(
        tmp_path / f"more{kind}", flag=[True, False] * 10, size=[1] * N, a=[None] * N, c=["z"] * N
    )
    site = opened(path, top=f'validation = "{more}"')
    names = site.encoding.features
    assert "flag = unknown" in names
    assert "size = A" in names
    x = site.validation.x
    assert x[:, names.index("flag = true")].tolist() == [1, 0] * 10
    assert x[:, names.index("flag = false")].tolist() == [0, 1] * 10
    assert x[:, names.index("size = 1")].tolist() == [1] * N


@KINDS
def test_listed_categories_win_over_numbers(tmp_path, kind):
    path = table(tmp_path / f"t{kind}", size=[38, 40] * 10, b=[None] * N, a=list(range(N)))
    more = 'categories.size = ["38", "40", "XL"]\ncategories.b = ["x", "y"]'
    site = opened(path, more)
    assert site.encoding.features == ("size = 38", "size = 40", "size = XL", "b = x", "b = y", "a")
    assert site.train.x[:, :5].sum(1).tolist() == [1] * len(site.train.y)


@KINDS
def test_a_validation_file_of_a_few_rows_keeps_every_column_of_the_training(tmp_path, kind):
    path = table(tmp_path / "t.csv", row_id=[n % 9 for n in range(N)], a=list(range(N)))
    more = table(tmp_path / f"more{kind}", row_id=list(range(N)), a=list(range(N)))
    site = opened(path, top=f'validation = "{more}"')
    assert site.encoding.features == ("row_id", "a")
    assert site.validation.x[:, 0].tolist() == list(range(N))


@pytest.mark.parametrize(
    ("column", "values", "more"),
    [
        ("label", pa.array([[1], [2]] * 10), ""),
        ("label", pa.array([b"\xff", b"a"] * 10), ""),
        ("grp", pa.array([{"a": 1}, {"a": 2}] * 10), 'group = "grp"'),
    ],
)
def test_a_column_that_pyarrow_can_not_convert_is_named(tmp_path, column, values, more):
    path = table(tmp_path / "t.parquet", **{"a": list(range(N)), column: values})
    one_problem(checked(path, more), "a column can't be read", repr(column))


def test_parts_of_a_column_that_can_not_be_joined_are_told(tmp_path):
    table(tmp_path / "parts/0.parquet", a=list(range(N)))
    table(tmp_path / "parts/1.parquet", a=[[1]] * N)
    one_problem(checked(tmp_path / "parts"), "a column can't be read", "'a'")


def test_an_encoding_of_too_many_features_is_refused_before_it_is_made(tmp_path, monkeypatch):
    path = table(tmp_path / "t.csv", **{f"c{n}": ["r", "g", "b", "w"] * 5 for n in range(5)})
    monkeypatch.setattr("f2l_fed.data.readers.feature_encoding.MOST_VALUES", 399)
    one_problem(checked(path), "the encoded table is too large", "399", "400")


@KINDS
def test_settled_features_are_the_same_whatever_a_site_has(tmp_path, kind):
    more = 'columns = ["size", "row id", "a"]\nindicators = ["a"]\n'
    more += 'categories.size = ["L", "M"]\nscale = "standard"'
    parts = {"a": list(range(N)), "row id": list(range(N)), "size": ["M"] * N, "b": [1, 2] * 10}
    one = opened(table(tmp_path / f"one{kind}", **parts), more)
    parts |= {"a": [None, 1] * 10, "size": [None] * N, "row id": [1, 2] * 10}
    other = opened(table(tmp_path / f"other{kind}", **parts), more)
    features = ("size = L", "size = M", "row id", "a", "a is missing")
    assert one.encoding.features == other.encoding.features == features
    assert set(one.train.x[:, 4].tolist()) == {0.0}
    assert set(other.train.x[:, 4].tolist()) == {0.0, 1.0}
    report = checked(tmp_path / f"one{kind}", more)
    assert not any("settle" in remark for remark in report.remarks)


def test_settled_features_that_a_table_lacks_are_told(tmp_path):
    path = table(tmp_path / "t.csv", a=list(range(N)), colour=["red", "blue"] * 10)
    one_problem(checked(path, 'columns = ["a", "colr"]'), "[data] columns", "'colr'", "'colour'")
    one_problem(checked(path, 'indicators = ["colour"]'), "hold no numbers", "'colour'")
    with pytest.raises(ConfigError, match="indicators is out of range"):
        opened(path, 'gaps = "median"\nindicators = ["a"]')


def test_texts_that_differ_by_case_are_one_feature(tmp_path):
    path = table(tmp_path / "t.csv", a=list(range(N)), colour=["red", "Red", "RED", "blue"] * 5)
    site = opened(path)
    assert [name.casefold() for name in site.encoding.features] == [
        "a",
        "colour = red",
        "colour = blue",
    ]
    assert site.train.x[:, 1].mean() == pytest.approx(0.75, abs=0.1)


def test_agreed_scales_hold_with_a_privacy_budget_too(tmp_path):
    path = table(tmp_path / "t.csv", a=[None, *(1e6 + n for n in range(1, N))], b=list(range(N)))
    more = 'scale = "standard"\nscales.a = [1e6, 10]'
    for budget in ({}, {"privacy": "epsilon = 8.0"}):
        site = opened(path, more, **budget)
        a, *others = site.encoding.columns
        assert (a.mean, a.spread) == (1e6, 10)
        assert a.indicator != bool(budget)
        gaps = torch.cat([site.train.x, site.validation.x])[:, 0] == 0
        assert bool(budget) == bool(gaps.any())
        assert (others[0].mean == 0) == bool(budget)
    one_problem(checked(path, "scales.c = [0, 1]"), "scales under [data]", "'c'")
    with pytest.raises(ConfigError, match="scales is out of range"):
        opened(path, "scales.a = [1e6, 0]")
