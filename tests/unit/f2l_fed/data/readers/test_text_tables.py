"""Text tables as spreadsheets, laboratories and other countries write them."""

from __future__ import annotations

import bz2
import gzip

import numpy as np
import pytest

from clients.site.site import open_site
from f2l_fed.data.readers.config import ReadingConfig
from f2l_fed.data.readers.reading import read_raw
from f2l_fed.errors import DataError
from tests.support.checked_site import checked, one_problem, one_remark, opened, site_on, write_rows

N = 20
SPREADSHEET = "größe;länge;label\r\n" + "".join(
    f"{n},5;1.{n:03d},25;{'Kratzer ä' if n % 2 else 'gut'}\r\n" for n in range(20)
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16"])
def test_a_table_from_excel_is_read_in_any_encoding(tmp_path, encoding):
    path = write_rows(tmp_path / "Teile.CSV", encoding=encoding, text=SPREADSHEET)
    report = checked(path)
    assert report.problems == ()
    assert set(report.per_class) == {"Kratzer ä", "gut"}
    assert report.input_shape == (2,)
    one_remark(report, "semicolons")
    one_remark(report, "comma")
    assert any("Windows-1252" in text for text in report.remarks) == (
        encoding in ("latin-1", "cp1252")
    )
    x = open_site(tmp_path / "site-of-Teile.CSV/site.toml").train.x
    assert {0.5, 1.5} <= set(x[:, 0].tolist())
    assert x[:, 1].min() >= 1000


def test_an_encoding_can_be_named_and_one_that_does_not_fit_is_told(tmp_path):
    text = "a;label\n" + "1;Łódź\n2;Gdańsk\n" * 5
    path = write_rows(tmp_path / "t.csv", encoding="iso-8859-2", text=text)
    assert set(checked(path, 'encoding = "iso-8859-2"').per_class) == {"Łódź", "Gdańsk"}
    problem = one_problem(checked(path, 'encoding = "utf-8"'), "t.csv", "utf-8")
    assert "encoding" in problem
    problem = one_problem(checked(path, 'encoding = "klingon"'), "encoding")
    assert "data.encoding" in problem


@pytest.mark.parametrize(
    ("suffix", "separator"), [(".tsv", "\t"), (".txt", "|"), (".csv", ";"), (".tab", "\t")]
)
def test_the_separator_is_found(tmp_path, suffix, separator):
    text = write_rows(tmp_path / "t.csv").read_text().replace(",", separator)
    report = checked(write_rows(tmp_path / f"u{suffix}", text=text))
    assert report.problems == ()
    assert report.input_shape == (2,)


def test_commas_inside_names_and_texts_are_no_separators(tmp_path):
    text = 'Länge, mm;Breite, mm;label\n1,5;2,5;ok\n2,5;3,5;"ok; fast"\n'
    text += '3,5;1,5;ok\n4,5;0,5;"ok; fast"\n'
    site = opened(write_rows(tmp_path / "t.csv", text=text))
    assert site.labels == ("ok", "ok; fast")
    assert sorted(site.train.x[:, 0].tolist() + site.validation.x[:, 0].tolist()) == [
        1.5,
        2.5,
        3.5,
        4.5,
    ]


def test_a_line_that_names_the_separator_is_understood(tmp_path):
    rows = "".join(f"{n},5;{'xy'[n % 2]}\r\n" for n in range(20))
    report = checked(write_rows(tmp_path / "t.csv", text=f"sep=;\r\na;label\r\n{rows}"))
    assert (report.problems, report.train) == ((), 16)
    problem = one_problem(
        checked(write_rows(tmp_path / "t.csv", text=f"sep=;\r\na;label\r\n{rows}z;x\r\n"))
    )
    assert "'z' (t.csv:23)" in problem


@pytest.mark.parametrize(
    ("written", "more", "value"),
    [
        ('"1,234.5"', "", 1234.5),
        ('"1,234,567"', "", 1234567),
        ("1 234.5", "", 1234.5),
        ("1'234.5", "", 1234.5),
        ("1e3", "", 1000),
        (" 7 ", "", 7),
        ("\u22127", "", -7),
        ('"1,234"', 'decimal = ","', 1.234),
        ('"1.234"', 'decimal = ","', 1234),
    ],
)
def test_numbers_are_read_as_people_write_them(tmp_path, written, more, value):
    text = "a,label\n" + f"{written},x\n5,y\n" * 4
    site = opened(write_rows(tmp_path / "t.csv", text=text), more)
    assert sorted(set(site.train.x[:, 0].tolist())) == pytest.approx(sorted({value, 5.0}))


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_compressed_tables_are_read_and_damaged_ones_are_told(tmp_path, suffix, pack):
    packed = pack(write_rows(tmp_path / "t.csv").read_bytes())
    (tmp_path / f"t.csv{suffix}").write_bytes(packed)
    assert checked(tmp_path / f"t.csv{suffix}").problems == ()
    (tmp_path / f"t.csv{suffix}").write_bytes(packed[: len(packed) // 2])
    one_problem(checked(tmp_path / f"t.csv{suffix}"), "t.csv", "can't be read")


def test_parts_in_a_folder_are_one_table(tmp_path):
    whole = write_rows(tmp_path / "t.csv").read_text().splitlines(keepends=True)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/_SUCCESS").touch()
    (tmp_path / "parts/part-0.csv").write_text("".join(whole[:11]))
    (tmp_path / "parts/part-1.csv").write_text("".join([whole[0], *whole[11:]]))
    report = checked(tmp_path / "parts")
    assert report.problems == ()
    assert report.train + report.validation == 20
    (tmp_path / "parts/part-1.csv").write_text("a,c,label\n1,2,ok\n")
    one_problem(checked(tmp_path / "parts"), "other columns", "part-1.csv: 'b', 'c'")


def test_rows_of_another_length_are_counted_and_the_first_are_named(tmp_path):
    rows = "".join(f"{n},{n % 2}{',extra' * (n % 3 == 0)}\n" for n in range(30))
    problem = one_problem(
        checked(write_rows(tmp_path / "t.csv", text="a,label\n" + rows)), "number of fields"
    )
    assert "10 in all" in problem
    assert "3 (t.csv:2), 3 (t.csv:5), 3 (t.csv:8), 3 (t.csv:11), 3 (t.csv:14) and 5 more" in problem
    assert "expected 2" in problem


def test_all_bad_values_of_all_columns_are_told_at_once(tmp_path):
    rows = "".join(f"{n},{n},{'ab'[n % 2]}\n" for n in range(30))
    text = "u,v,label\n" + rows + "x1,3,a\n4,inf,b\n" + "".join(f"z{n},1,a\n" for n in range(7))
    report = checked(write_rows(tmp_path / "t.csv", text=text))
    texts = one_problem(report, "column 'u'", "no numbers", "8 in all")
    assert "'x1' (t.csv:32), 'z0' (t.csv:34)" in texts
    assert "and 3 more" in texts
    one_problem(report, "column 'v'", "infinite", "inf (t.csv:33)")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04rest", "an Excel workbook"),
        (b"\xd0\xcf\x11\xe0rest", "an old Excel workbook"),
        (b"a,label\n1,\0\n", "zero bytes"),
        (b"", "the table is empty"),
        (b"a,label\n", "no rows"),
        (b"5.1,3.5,0\n4.9,3.0,1\n", "no column of labels"),
    ],
)
def test_what_is_no_table_is_refused_with_the_remedy(tmp_path, content, words):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    assert "t.csv" in one_problem(checked(path), words)


def test_an_excel_workbook_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "t.xlsx").write_bytes(b"PK\x03\x04")
    assert "Save the sheet as CSV" in one_problem(checked(tmp_path / "t.xlsx"), "unknown data")


def test_a_table_beyond_the_limit_is_refused_and_the_limit_is_named(tmp_path, monkeypatch):
    path = write_rows(tmp_path / "t.csv")
    monkeypatch.setattr("f2l_fed.data.readers.text_rows.MOST_VALUES", 50)
    assert "at most 50 values, got 60" in one_problem(checked(path), "too large")
    monkeypatch.setattr("f2l_fed.data.readers.text_format.MOST_BYTES", 100)
    one_problem(checked(path), "too large", "at most 0.0 GB of text")


def test_quotes_line_breaks_and_trailing_separators_are_read(tmp_path):
    text = 'a,note,label,\n1,"two\nlines",x,\n2,"said ""hi""",y,\n3,,x,\n4,,y,\n'
    site = opened(write_rows(tmp_path / "t.csv", text=text), 'ignore = ["note"]')
    assert np.sort(np.r_[site.train.x.numpy(), site.validation.x.numpy()], 0).tolist() == [
        [1],
        [2],
        [3],
        [4],
    ]


def test_site_toml_with_a_mark_of_its_encoding_is_read(tmp_path):
    path = site_on(write_rows(tmp_path / "t.csv"))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert open_site(path).labels == ("ok", "scratch")


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("{n} mm", "The unit 'mm' in column 'a'"),
        ("{n}%", "The unit '%' in column 'a'"),
        ("€ {n}", "The unit '€' in column 'a'"),
        ('"{n},5"', "The decimal mark of column 'a' is ','"),
        ("{n} 000", "Separators between thousands in column 'a'"),
    ],
)
def test_units_and_another_decimal_mark_are_removed_from_a_column_with_a_remark(
    tmp_path, cell, words
):
    rows = "".join(f"{cell.format(n=n)},{n}.25,{'xy'[n % 2]}\n" for n in range(N))
    report = checked(write_rows(tmp_path / "t.csv", text=f"a,b,label\n{rows}"))
    assert (report.problems, report.input_shape) == ((), (2,))
    one_remark(report, words)


def test_codes_with_a_letter_are_no_numbers(tmp_path):
    rows = "".join(f"M{n % 3},{n},{'xy'[n % 2]}\n" for n in range(N))
    site = opened(write_rows(tmp_path / "t.csv", text=f"a,b,label\n{rows}"))
    assert site.encoding.features == ("a = M0", "a = M1", "a = M2", "b")


def test_empty_rows_are_passed_over_and_rows_keep_their_numbers(tmp_path):
    rows = "".join(f"{n};{'xy'[n % 2]}\n\n" for n in range(N))
    text = f"a;label\n{rows}zz;x\n" + ";\n" * 9
    problem = one_problem(checked(write_rows(tmp_path / "t.csv", text=text)))
    assert f"'zz' (t.csv:{2 * N + 2})" in problem
    report = checked(write_rows(tmp_path / "t.csv", text=text.replace("zz", "5")))
    assert (report.problems, report.train + report.validation) == ((), N + 1)
    assert not any("without a label" in text for text in report.remarks)


def test_lines_of_comments_above_the_header_are_passed_over(tmp_path):
    rows = "".join(f"{n},{'xy'[n % 2]}\n" for n in range(N))
    text = f"# made by a device, 2026\n# serial 7\na,label\n{rows}"
    report = checked(write_rows(tmp_path / "t.csv", text=text))
    assert (report.problems, report.train) == ((), 16)
    problem = one_problem(checked(write_rows(tmp_path / "t.csv", text=f"{text}z,x\n")))
    assert f"'z' (t.csv:{N + 4})" in problem
    rows = "".join(f"{n},{n},{'xy'[n % 2]}\n" for n in range(N))
    report = checked(write_rows(tmp_path / "t.csv", text=f"#,a,label\n{rows}"))
    assert (report.problems, report.input_shape) == ((), (2,))


def test_a_table_without_a_header_is_told(tmp_path):
    rows = "".join(f"{n},{n * 2},{n % 3}\n" for n in range(N))
    one_problem(checked(write_rows(tmp_path / "t.csv", text=rows)), "first line", "names every")
    one_problem(
        checked(write_rows(tmp_path / "t.csv", text=f"5.1,3.5,0\n{rows}")), "names every column"
    )


def test_texts_that_differ_in_most_rows_or_are_long_are_no_categories(tmp_path):
    rows = "".join(f"part{n // 2}x,{n},{'y' * 70},{'xy'[n % 2]}\n" for n in range(N))
    report = checked(write_rows(tmp_path / "t.csv", text=f"c,a,note,label\n{rows}"))
    assert report.input_shape == (11,)
    one_remark(report, "'note'", "left out")
    rows = "".join(f"part{n}x,{n},{'xy'[n % 2]}\n" for n in range(N))
    report = checked(write_rows(tmp_path / "t.csv", text=f"c,a,label\n{rows}"))
    assert report.input_shape == (1,)
    one_remark(report, "'c'", "20 different ones", "left out")


def test_labels_with_a_decimal_comma_are_whole_numbers(tmp_path):
    rows = "".join(f"{n},5;{n % 2},0\n" for n in range(N))
    report = checked(write_rows(tmp_path / "t.csv", text=f"a;label\n{rows}"))
    assert set(report.per_class) == {"0", "1"}


def test_notes_beside_the_parts_of_a_table_are_left_out_with_a_remark(tmp_path):
    write_rows(tmp_path / "parts/a.csv")
    (tmp_path / "parts/readme.txt").write_text("hello")
    report = checked(tmp_path / "parts")
    assert report.problems == ()
    one_remark(report, "readme.txt")


def test_numbers_that_may_be_thousands_or_decimals_are_remarked(tmp_path):
    rows = "".join(f"{n + 1}.000;{'xy'[n % 2]}\n" for n in range(N))
    path = write_rows(tmp_path / "t.csv", text=f"a;label\n{rows}")
    one_remark(checked(path), "separates thousands", 'decimal = ","')
    assert opened(path).train.x.max() <= N
    assert opened(path, 'decimal = ","').train.x.min() >= 1000


def test_a_leading_zero_is_no_thousand(tmp_path):
    rows = "".join(f"{n},5;0.{n + 100};{n},25;{'xy'[n % 2]}\n" for n in range(N))
    path = write_rows(tmp_path / "t.csv", text=f"a;b;c;label\n{rows}")
    one_remark(checked(path), "The decimal mark of column 'b' is '.'")
    assert opened(path).train.x[:, 1].max() < 1


def test_the_decimal_mark_is_decided_over_all_rows(tmp_path):
    rows = "".join(f"{n};{'xy'[n % 2]}\n" for n in range(300)) + "1,234;x\n2,345;y\n"
    path = write_rows(tmp_path / "t.csv", text=f"a;label\n{rows}")
    one_remark(checked(path), "The decimal mark is a comma")
    assert opened(path).train.x.max() < 300


def test_parts_share_the_decimal_mark_of_all_rows(tmp_path):
    first = "".join(f"{n + 1}.234;{'xy'[n % 2]}\n" for n in range(N))
    second = "".join(f"{n},5;{'xy'[n % 2]}\n" for n in range(N))
    for name, rows in (("a.csv", first), ("b.csv", second)):
        write_rows(tmp_path / "p" / name, text=f"a;label\n{rows}")
    site = opened(tmp_path / "p")
    values = np.sort(np.r_[site.train.x.numpy(), site.validation.x.numpy()][:, 0])
    assert values.tolist() == [n + 0.5 for n in range(N)] + [1000 * n + 1234 for n in range(N)]


@pytest.mark.parametrize("points", [5, N, 60])
def test_parts_with_different_decimal_marks_in_a_column_are_told(tmp_path, points):
    first = "".join(f"{n + 1}.25;{'xy'[n % 2]}\n" for n in range(points))
    second = "".join(f"{n},5;{'xy'[n % 2]}\n" for n in range(N))
    for name, rows in (("a.csv", first), ("b.csv", second)):
        write_rows(tmp_path / "p" / name, text=f"a;label\n{rows}")
    one_problem(checked(tmp_path / "p"), "values in column 'a' are no numbers")


@pytest.mark.parametrize("line", ["1,1\n", "\n", "1,1,1\n"])
def test_a_packed_table_is_refused_before_all_of_it_is_held(tmp_path, monkeypatch, line):
    def never(*_: object) -> None:
        raise AssertionError("all of it was read")

    monkeypatch.setattr("f2l_fed.data.readers.text_rows.MOST_VALUES", 200_000)
    monkeypatch.setattr("f2l_fed.data.readers.table_files.read_text", never)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a,label\n" + line.encode() * 300_000, 1))
    with pytest.raises(DataError, match="the table is too large"):
        read_raw(tmp_path / "t.csv.gz", ReadingConfig())


def test_a_text_with_two_encodings_is_told(tmp_path):
    rows = "".join(f"{n},{'größer' if n % 2 else 'früher'}\n" for n in range(N))
    path = write_rows(tmp_path / "t.csv", text=f"größe,label\n{rows}")
    path.write_bytes(path.read_bytes() + "5,früher\n".encode("cp1252"))
    one_problem(checked(path), "UTF-8 in most places, but not in all")
